"""Rulebooks: TOML files that say which sites of a model are rewritten, how, and which are kept.

This layer reads them and matches their rules to sites; the engine binds the rules to rewrites.
"""

from spdify.rulebook.form import KEEP, Match, Range, Rule, Rulebook, RulebookSource
from spdify.rulebook.matching import first_match, matches
from spdify.rulebook.overrides import with_overrides
from spdify.rulebook.parsing import parse_rulebook
from spdify.rulebook.shelf import list_rulebooks, load_rulebook, rules_folder

__all__ = [
    "KEEP",
    "Match",
    "Range",
    "Rule",
    "Rulebook",
    "RulebookSource",
    "first_match",
    "list_rulebooks",
    "load_rulebook",
    "matches",
    "parse_rulebook",
    "rules_folder",
    "with_overrides",
]
