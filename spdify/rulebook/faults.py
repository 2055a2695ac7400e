"""From what pydantic says about a rulebook to what its author needs: key, what was expected, what was found."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from spdify.rulebook.form import Match, Range, Rule, Rulebook, RulebookSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

_TABLES: dict[str, type[BaseModel]] = {
    "": Rulebook,
    "rule": Rule,
    "source": RulebookSource,
    "match": Match,
    "resolution": Range,
}
_MAX_FAULTS = 10
_MAX_SHOWN = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give `Did you mean 'x'?` where something known is near `word`; else what is known, as far as anything is."""
    known = list(known)
    near = get_close_matches(word.lower(), known, n=3)
    if near:
        return "Did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    return f"Known: {', '.join(known)}." if known else ""


def faults(error: ValidationError) -> str:
    """Give one line per fault: `rule[1].match.operator: expected …, got …`."""
    # A key that is misspelt is also missing under its right name: the slip first, then what follows from it.
    details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    lines = [_line(detail) for detail in details]
    if len(lines) > _MAX_FAULTS:
        lines = [*lines[:_MAX_FAULTS], f"and {len(lines) - _MAX_FAULTS} more"]
    return "\n".join(f"  {line}" for line in lines)


def shown(value: object) -> str:
    """Give `value` as it may stand in a message: a word for a table, and cut where it is long."""
    if isinstance(value, dict):
        return f"a table with {', '.join(map(str, value)) or 'no keys'}"
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of thousands of digits, nor a list with one
        return "a number too long to be shown"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _line(detail: ErrorDetails) -> str:
    location = detail["loc"]
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), _keys_beside(location))
        return f"{_key(location)}: expected no such key. {hint}"
    if detail["type"] == "missing":
        return f"{_key(location)}: expected a value, got nothing"
    return f"{_key(location)}: expected {_expectation(detail)}, got {shown(detail['input'])}"


def _expectation(detail: ErrorDetails) -> str:
    if detail["type"] in {"model_type", "dict_type"}:
        return "a table"
    if detail["type"] in {"tuple_type", "list_type"}:
        return "a list"
    return detail["msg"].removeprefix("Input should be ")


def _key(location: tuple[int | str, ...]) -> str:
    """Give `("rule", 1, "match")` as `rule[1].match`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the rulebook"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    parents = [part for part in location[:-1] if isinstance(part, str)]
    fields = _TABLES[parents[-1] if parents else ""].model_fields
    # The name of a rulebook is that of its file, and no key.
    hidden = "name" if not parents else ""
    return [str(field.validation_alias or name) for name, field in fields.items() if name != hidden]
