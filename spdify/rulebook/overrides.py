"""`--set rule.param=value`: other values for the parameters of a rulebook's rules."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from spdify.errors import RulebookError, UsageError
from spdify.rulebook.faults import did_you_mean, faults
from spdify.rulebook.form import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.rulebook.form import Rulebook

_FORM = "Write rule.param=value, for example strided-conv.kernel=odd."


def with_overrides(rulebook: Rulebook, items: Sequence[str]) -> Rulebook:
    """Give `rulebook` with other values for some parameters; of two items for the same parameter the later one holds.

    Args:
        rulebook: The rulebook, which stays as it is.
        items: `rule.param=value` each. A value is one of TOML (`3`, `true`, `"odd"`); a bare word is a string.

    Raises:
        UsageError: An item is not of this form.
        RulebookError: There is no such rule, or it cannot have such a value.
    """
    rules = {rule.name: rule for rule in rulebook.rules}
    for item in [items] if isinstance(items, str) else items:
        name, param, value = _parts(item)
        if name not in rules:
            message = f"cannot set {item!r}: expected a rule of rulebook '{rulebook.name}', got '{name}'"
            raise RulebookError(message, hint=did_you_mean(name, rules))
        rules[name] = _with_param(rules[name], param, _value(value, item), item)
    return rulebook.model_copy(update={"rules": tuple(rules.values())})


def _parts(item: str) -> tuple[str, str, str]:
    key, _, value = (part.strip() for part in item.partition("="))
    name, _, param = key.partition(".")
    if not (name and param and value):
        raise UsageError(f"cannot set {item!r}: expected rule, parameter and value", hint=_FORM)
    return name, param, value


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
    try:
        return Rule.model_validate({**fields, "params": {**rule.params, param: value}})
    except ValidationError as error:
        raise RulebookError(f"cannot set {item!r} on rule '{rule.name}':\n{faults(error)}") from error
