"""Several rulebooks as one: the rules of the first, then those of the second, and so on.

Rules of several books may have the same name, so each gets that of its book in front: `spd/max-pool`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spdify.errors import RulebookError
from spdify.rulebook.form import Rulebook, RulebookSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spdify.rulebook.form import Rule

_MARK = "/"  # No file has it in its name, and no rule in that of its own.


def join_rulebooks(books: Sequence[Rulebook]) -> Rulebook:
    """Give one rulebook with the rules of all, in order, so that the first book with a rule for a site decides.

    Args:
        books: At least one; a single one is given back as it is, its rules' names without that of the book.

    Raises:
        RulebookError: There is none, or two have the same name.
    """
    _require_names_of_their_own([book.name for book in books])
    if len(books) == 1:
        return books[0]
    return Rulebook(
        name="+".join(book.name for book in books),
        schema_version=books[0].schema_version,
        summary=" ".join(book.summary for book in books),
        source=_joined(book.source for book in books),
        rules=tuple(_qualified(rule, book) for book in books for rule in book.rules),
    )


def split_name(rule: str) -> tuple[str, str]:
    """Give the book (empty where the name is not qualified) and the name of its own of a rule."""
    book, _, own = rule.rpartition(_MARK)
    return book, own


def qualified_name(rule: str, book: str) -> str:
    """Give the name of a rule with that of the book in front, if it has none in front already."""
    return rule if _MARK in rule else f"{book}{_MARK}{rule}"


def _qualified(rule: Rule, book: Rulebook) -> Rule:
    # A copy is not validated: in a file, the form of a name keeps the mark out.
    return rule.model_copy(update={"name": qualified_name(rule.name, book.name)})


def _joined(sources: Iterable[RulebookSource]) -> RulebookSource:
    # All in `paper`: each has its section behind it already.
    return RulebookSource(paper="; ".join(dict.fromkeys(filter(None, map(str, sources)))))


def _require_names_of_their_own(names: Sequence[str]) -> None:
    if not names:
        raise RulebookError("cannot join rulebooks: expected at least one, got none", hint="The default is 'spd'.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RulebookError(
            f"cannot join rulebooks: expected a name of its own for each, got '{twice[0]}' more than once",
            hint="Give each rulebook once; of two files with the same name, rename one: it tells their rules apart.",
        )
