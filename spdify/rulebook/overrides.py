"""`--set rule.param=value`: other values for the parameters of a rulebook's rules.

A rule goes by the name that it has in its file, in every book that has one so called, or with the book in front.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from spdify.errors import RulebookError, UsageError
from spdify.rulebook.faults import did_you_mean, faults
from spdify.rulebook.form import Rule
from spdify.rulebook.joining import qualified_name, split_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.rulebook.form import Rulebook

_FORM = "Write rule.param=value or book/rule.param=value, for example strided-conv.kernel=odd."


def with_overrides(rulebook: Rulebook, items: Sequence[str]) -> Rulebook:
    """Give `rulebook` with other values for some parameters; of two items for the same parameter the later one holds.

    Args:
        rulebook: The rulebook, which stays as it is.
        items: `rule.param=value` each, or `book/rule.param=value`; without a book, the rule in all books that were
            joined and have it. A value is one of TOML (`3`, `true`, `"odd"`); a bare word is a string.

    Raises:
        UsageError: An item is not of this form.
        RulebookError: There is no such rule, or it cannot have such a value.
    """
    rules = {rule.name: rule for rule in rulebook.rules}
    for item in [items] if isinstance(items, str) else items:
        name, param, text = _parts(item)
        meant = _rules_called(name, rulebook, item)
        value = _value(text, item)
        rules |= {rule: _with_param(rules[rule], param, value, item) for rule in meant}
    return rulebook.model_copy(update={"rules": tuple(rules.values())})


def overridden(rulebook: Rulebook, items: Sequence[str]) -> dict[str, frozenset[str]]:
    """Give, by rule, the parameters that the items set, whether or not that changes their values.

    Args:
        rulebook: The rulebook that they are for.
        items: As `with_overrides` takes them.

    Raises:
        UsageError: An item is not of this form.
        RulebookError: There is no such rule.
    """
    found: dict[str, frozenset[str]] = {}
    for item in [items] if isinstance(items, str) else items:
        name, param, _ = _parts(item)
        for rule in _rules_called(name, rulebook, item):
            found[rule] = found.get(rule, frozenset()) | {param}
    return found


def _parts(item: str) -> tuple[str, str, str]:
    key, _, value = (part.strip() for part in item.partition("="))
    # The name of a book may have dots, that of a rule has none.
    book, own = split_name(key)
    own, _, param = own.partition(".")
    if not (own and param and value):
        raise UsageError(f"cannot set {item!r}: expected rule, parameter and value", hint=_FORM)
    return (qualified_name(own, book) if book else own), param, value


def _rules_called(name: str, rulebook: Rulebook, item: str) -> list[str]:
    """Give the rules that go by this name, as they are called in `rulebook`."""
    qualified = bool(split_name(name)[0])
    names = {
        rule.name: qualified_name(rule.name, rulebook.name) if qualified else split_name(rule.name)[1]
        for rule in rulebook.rules
    }
    if name not in names.values():
        message = f"cannot set {item!r}: expected a rule of rulebook '{rulebook.name}', got '{name}'"
        raise RulebookError(message, hint=did_you_mean(name, dict.fromkeys(names.values())))
    return [rule for rule, called in names.items() if called == name]


def _value(text: str, item: str) -> object:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        # What begins like TOML and is none was meant as TOML; to take it as a string would hide the slip.
        if text[0] in "\"'[{":
            raise UsageError(f"cannot set {item!r}: expected a TOML value, got {text!r}", hint=_FORM) from error
        return text
    # A line break in the text would start a second key.
    return document["value"] if len(document) == 1 else text


def _with_param(rule: Rule, param: str, value: object, item: str) -> Rule:
    fields = {name: getattr(rule, name) for name in Rule.model_fields}
    # Checked under the name that it has in its file: the form knows no other.
    fields |= {"name": split_name(rule.name)[1], "params": {**rule.params, param: value}}
    try:
        return rule.model_copy(update={"params": Rule.model_validate(fields).params})
    except ValidationError as error:
        raise RulebookError(f"cannot set {item!r} on rule '{rule.name}':\n{faults(error)}") from error
