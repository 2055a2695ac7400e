"""Recipes: presets, and changes to them."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from spdify.errors import UsageError
from spdify.records import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PRESETS = (
    # Short. What was learned moves slowly; what the conversion has put in, and a new classifier, five times as fast.
    Recipe(
        name="finetune", epochs=10, batch_size=64, optimizer="adamw", lr=5e-4, weight_decay=0.05, new_lr_factor=5.0,
        sched="cosine", warmup_epochs=1.0, smoothing=0.1, clip_grad=5.0,
    ),
    # arXiv 2208.03641, section 5.2: SGD 0.1, momentum 0.9, batch 128, decay 1e-4, 200 epochs, the step schedule of
    # ResNet (arXiv 1512.03385, section 4.2: a tenth at 32k and 48k of 64k steps), padding 4 and mirror images.
    Recipe(
        name="paper-cifar10", epochs=200, batch_size=128, optimizer="momentum", lr=0.1, momentum=0.9, weight_decay=1e-4,
        decay_all=True, sched="step", milestones=(0.5, 0.75), decay_rate=0.1, crop_padding=4,
    ),
    # The same, Tiny ImageNet: SGD 0.01793, momentum 0.9447, batch 256, decay 0.002113, 200 epochs. The schedule is not
    # published; a cosine is taken here.
    Recipe(
        name="paper-tinyimagenet", epochs=200, batch_size=256, optimizer="momentum", lr=0.01793, momentum=0.9447,
        weight_decay=0.002113, decay_all=True, sched="cosine", crop_padding=8,
    ),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _PRESETS}


def make_recipe(name: str, changes: Mapping[str, Any] | None = None, items: Sequence[str] = ()) -> Recipe:
    """Give a preset with changes.

    Args:
        name: Of the preset.
        changes: Values by field; those that are None are left out.
        items: `field=value` texts.

    Raises:
        UsageError: There is no such preset or field, or a value is out of range.
    """
    if name not in RECIPES:
        raise UsageError(f"cannot find the recipe {name!r}", hint=f"Expected one of {', '.join(RECIPES)}.")
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"cannot read {item!r} of the recipe: expected field=value, for example lr=0.01")
        given[key.strip()] = _value(text.strip())
    if unknown := sorted(given.keys() - Recipe.model_fields.keys() | given.keys() & {"name"}):
        near = get_close_matches(unknown[0], Recipe.model_fields, n=1)
        known = ", ".join(field for field in Recipe.model_fields if field != "name")
        hint = f"Did you mean {near[0]}?" if near else f"Known: {known}."
        raise UsageError(f"cannot set {unknown[0]} of the recipe: there is no such field", hint=hint)
    try:
        # Not a copy with an update: that would check nothing.
        return Recipe.model_validate(RECIPES[name].model_dump() | given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(f"cannot set {field} of the recipe to {first['input']!r}: {first['msg']}") from None


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
