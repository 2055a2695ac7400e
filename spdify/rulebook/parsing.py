"""From the bytes of a TOML file to a `Rulebook`, or to an error that says where the file is wrong."""

from __future__ import annotations

import tomllib
from typing import Any

from pydantic import ValidationError

from spdify.errors import RulebookError
from spdify.rulebook.faults import faults
from spdify.rulebook.form import Rulebook

_END = "(at end of document)"
#: Of one line: the time that tomllib takes for a dotted key grows with the square of its parts.
_MAX_DOTS = 500
#: Of a rulebook: each is tried on every site, and Python keeps at most 32,768 of them ready.
_MAX_GLOBS = 10_000


def parse_rulebook(data: bytes, *, name: str, file: str) -> Rulebook:
    """Read a rulebook.

    Args:
        data: Content of the file.
        name: What the rulebook is called.
        file: Path for messages.

    Raises:
        RulebookError: The data is no UTF-8, no TOML, not in the form of a rulebook, or has too many globs.
    """
    document = _toml(_text(data, file), file)
    if "name" in document:
        message = f"cannot read rulebook {file}: name: expected no such key"
        raise RulebookError(message, hint="A rulebook is called by the name of its file; `summary` says what it does.")
    try:
        book = Rulebook.model_validate({**document, "name": name}, by_name=True, by_alias=True)
    except ValidationError as error:
        raise RulebookError(f"cannot read rulebook {file}:\n{faults(error)}") from error
    matches = (rule.match for rule in book.rules)
    globs = sum(len(key or ()) for m in matches for key in (m.type, m.parent, m.path, m.exclude))
    if globs > _MAX_GLOBS:
        raise RulebookError(
            f"cannot read rulebook {file}: expected at most {_MAX_GLOBS:,} globs in all rules, got {globs:,}",
            hint="Take globs that match more (`stage*.conv`), or several rulebooks (`--rules A --rules B`).",
        )
    return book


def _text(data: bytes, file: str) -> str:
    try:
        # Some editors begin a file with a byte order mark, which TOML does not know.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"cannot read rulebook {file}: expected UTF-8, got byte 0x{data[error.start]:02x} on line {line}"
        raise RulebookError(message, hint="Save the file as UTF-8.") from error


def _toml(text: str, file: str) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        if (dots := line.count(".")) > _MAX_DOTS:
            raise RulebookError(
                f"cannot read rulebook {file}: expected at most {_MAX_DOTS} dots in a line, "
                f"got {dots} in line {number}",
                hint="A key has few parts; put a long list on several lines.",
            )
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise RulebookError(f"cannot read rulebook {file}: expected TOML, got brackets nested too deep") from error
    except ValueError as error:
        reason = str(error).replace(_END, _last_position(text))
        raise RulebookError(f"cannot read rulebook {file}: expected TOML, got: {reason}") from error


def _last_position(text: str) -> str:
    lines = text.split("\n")
    return f"(at line {len(lines)}, column {len(lines[-1]) + 1}, the end)"
