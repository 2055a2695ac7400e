"""Where rulebooks lie: those that come with spdify, by name, and the user's own, by path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spdify.errors import RulebookError
from spdify.rulebook.faults import did_you_mean
from spdify.rulebook.form import GROUPS
from spdify.rulebook.joining import join_rulebooks
from spdify.rulebook.parsing import parse_rulebook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.rulebook.form import Rulebook

_SUFFIX = ".toml"
_MAX_BYTES = 2**20
_PACKAGE = Path(__file__).resolve().parents[1]


def rules_folder() -> Path:
    """Give the folder of the rulebooks that come with spdify: inside an installed package, beside it in a checkout.

    Raises:
        RulebookError: There is none.
    """
    for folder in (_PACKAGE / "_rules", _PACKAGE.parent / "rules"):
        if folder.is_dir():
            return folder
    message = f"cannot find the rulebooks of spdify: expected a folder _rules in {_PACKAGE}"
    raise RulebookError(message, hint="Install spdify again.")


def list_rulebooks() -> list[str]:
    """Give the names of the rulebooks that come with spdify, sorted."""
    return sorted(file.stem for file in rules_folder().glob(f"*{_SUFFIX}"))


def grouped_rulebooks() -> dict[str, list[Rulebook]]:
    """Give the rulebooks that come with spdify by what they are about, in the order of `GROUPS`, sorted by name."""
    books = [load_rulebook(name) for name in list_rulebooks()]
    found = {group: [book for book in books if book.group == group] for group in GROUPS}
    return {group: held for group, held in found.items() if held}


def load_rulebook(name_or_path: str) -> Rulebook:
    """Read the rulebook with this name (`spd`), or the one at this path (`my/rules.toml`).

    Raises:
        RulebookError: There is no such rulebook, or it cannot be read.
    """
    file = _locate(name_or_path)
    return parse_rulebook(_read(file), name=file.stem, file=str(file))


def book_names(rules: str | Sequence[str]) -> tuple[str, ...]:
    """Give the names and paths of one rulebook or several, as they were given, always as a tuple."""
    return (rules,) if isinstance(rules, str) else tuple(rules)


def load_rules(rules: str | Sequence[str]) -> Rulebook:
    """Read one rulebook, or several that are joined in order: the first one with a rule for a site decides.

    Args:
        rules: A name or path, or several.

    Raises:
        RulebookError: One of them is not there or cannot be read, there is none, or two have the same name.
    """
    return join_rulebooks([load_rulebook(name) for name in book_names(rules)])


def _locate(name_or_path: str) -> Path:
    known = list_rulebooks()
    if name_or_path in known:
        return rules_folder() / f"{name_or_path}{_SUFFIX}"
    path = Path(name_or_path)
    if path.suffix.lower() == _SUFFIX and _exists(path):
        return path
    message = f"cannot find rulebook {name_or_path!r}: expected a known name, or the path of an existing {_SUFFIX} file"
    raise RulebookError(message, hint=did_you_mean(path.stem, known))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # for example: the name is too long
        return False


def _read(file: Path) -> bytes:
    # Also keeps out pipes and devices, which might never end.
    if not file.is_file():
        found = "a folder" if file.is_dir() else "something else"
        raise RulebookError(f"cannot read rulebook {file}: expected a file, got {found}")
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise RulebookError(f"cannot read rulebook {file}: {error.strerror or error}") from error
    if len(data) > _MAX_BYTES:
        raise RulebookError(f"cannot read rulebook {file}: expected at most {_MAX_BYTES} bytes, got more")
    return data
