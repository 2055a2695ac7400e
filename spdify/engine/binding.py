"""From names to code: a rule's rewrite and its parameters."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from spdify.errors import RulebookError
from spdify.rewrites import REGISTRY
from spdify.rulebook import KEEP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.records import ParamValue
    from spdify.rewrites import Rewrite
    from spdify.rulebook import Rulebook


def make_rewrite(name: str, params: Mapping[str, ParamValue], *, where: str) -> Rewrite[Any]:
    """Make the rewrite of this name with these parameters.

    Args:
        name: A key of `spdify.rewrites.REGISTRY`.
        params: As given in a rulebook or recorded in a plan.
        where: Whose name and parameters they are, for messages.

    Raises:
        RulebookError: No such rewrite, or a parameter that it does not take.
    """
    if name not in REGISTRY:
        near = get_close_matches(name, REGISTRY, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(REGISTRY)}, {KEEP}."
        msg = f"cannot use rewrite {name!r} at {where}: there is none of that name"
        raise RulebookError(msg, hint=hint)
    kind = REGISTRY[name]
    try:
        return kind(kind.params_type.model_validate(dict(params)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = ", ".join(kind.params_type.model_fields) or "none"
        expected = first["msg"] if first["type"] != "extra_forbidden" else f"one of its parameters ({known})"
        msg = f"cannot use {where}, params.{key}: expected {expected}, got {first['input']!r}"
        raise RulebookError(msg, hint="`spdify rules show` prints each rule with its parameters.") from error


def bind(rulebook: Rulebook) -> dict[str, Rewrite[Any]]:
    """Make the rewrite of every rule that has one, by the rule's name.

    Raises:
        RulebookError: A rule names no rewrite, or gives it what it does not take.
    """
    return {
        rule.name: make_rewrite(rule.rewrite, rule.params, where=f"rulebook {rulebook.name}, rule {rule.name}")
        for rule in rulebook.rules
        if rule.rewrite != KEEP
    }
