"""Rulebooks: TOML files that say which sites of a model are rewritten, how, and which are kept.

This layer reads them and matches their rules to sites; the engine binds the rules to rewrites.
"""

from spdify.rulebook.form import KEEP, Match, Range, Rule, Rulebook, RulebookSource
from spdify.rulebook.joining import join_rulebooks, split_name
from spdify.rulebook.matching import first_match, matches
from spdify.rulebook.overrides import overridden, with_overrides
from spdify.rulebook.parsing import parse_rulebook
from spdify.rulebook.shelf import book_names, grouped_rulebooks, list_rulebooks, load_rulebook, load_rules, rules_folder

__all__ = [
    "KEEP",
    "Match",
    "Range",
    "Rule",
    "Rulebook",
    "RulebookSource",
    "book_names",
    "first_match",
    "grouped_rulebooks",
    "join_rulebooks",
    "list_rulebooks",
    "load_rulebook",
    "load_rules",
    "matches",
    "overridden",
    "parse_rulebook",
    "rules_folder",
    "split_name",
    "with_overrides",
]
