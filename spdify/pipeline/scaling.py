"""A model made wider or deeper before its downsampling is rewritten."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from spdify.engine import apply_lazily
from spdify.engine.scaling import check_factor, plan_depth, plan_width
from spdify.graph import survey
from spdify.graph.structure import lazy_copy
from spdify.records import Check
from spdify.verification import failed
from spdify.verification.carried_proof import prove_carried
from spdify.verification.compare import relative_error
from spdify.verification.model_proof import prove_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spdify.engine.scaling import Scaling
    from spdify.pipeline.opening import Opened
    from spdify.records import Inputs
    from spdify.verification.model_proof import MakeInputs

COMPARED = ("whole model", "statistics")


@dataclass(frozen=True)
class Scaled:
    """A model after scaling.

    Attributes:
        opened: The model as it is now, with the plans that led there.
        checks: What was proved of each step; names begin with `scaled`.
        words: What was done, one line per step.
    """

    opened: Opened
    checks: tuple[Check, ...] = ()
    words: tuple[str, ...] = ()


def scale(  # noqa: PLR0913 - two factors, and how to run the model
    opened: Opened, *, width: float, depth: float, make_inputs: MakeInputs, seed: int, whole: bool = True
) -> Scaled:
    """Scale a model by the factors that are not 1, depth first, and prove each step that claims to be exact.

    Args:
        opened: The model.
        width: Factor of the number of channels.
        depth: Factor of the number of blocks per stage.
        make_inputs: Gives inputs of a batch of at least 2 in a dtype.
        seed: Of all random numbers.
        whole: Whether the whole model may be run in float64.

    Raises:
        UsageError: A factor is no such number, or nothing in the model can be scaled by it.
    """
    check_factor("width", width)
    check_factor("depth", depth)
    steps: list[Callable[[nn.Module, Inputs], Scaling]] = []
    if depth != 1:
        steps.append(lambda model, inputs: plan_depth(model, inputs, depth))
    if width != 1:
        steps.append(lambda model, inputs: plan_width(model, survey(model, inputs), inputs, width))
    scaled = Scaled(opened)
    for step in steps:
        model, inputs = scaled.opened.model, scaled.opened.inputs
        found = step(model, inputs)
        checks = _prove(model, found, make_inputs, seed) if whole else _unproved(found)
        after = replace(
            scaled.opened, model=apply_lazily(model, found.plan).eval(), plans=(*scaled.opened.plans, found.plan)
        )
        scaled = Scaled(after, (*scaled.checks, *checks), (*scaled.words, _words(found, checks)))
    return scaled


def _prove(model: nn.Module, found: Scaling, make_inputs: MakeInputs, seed: int) -> tuple[Check, ...]:
    """Compare the model with the scaled one; of a step that changes the function the distance is measured."""
    if not found.exact:
        return (_named(_distance(model, found, make_inputs), found),)
    carried = prove_carried(model, found.plan, seed=seed)
    proof = prove_model(model, found.plan, make_inputs, seed=seed)
    compared = [check for check in proof.checks if check.name.startswith(COMPARED)]
    return tuple(_named(check, found) for check in (*carried, *compared))


def _distance(model: nn.Module, found: Scaling, make_inputs: MakeInputs) -> Check:
    """Say how far the scaled model is from the one before, with the weights as they are."""
    args, kwargs = make_inputs(torch.float64)
    with torch.no_grad():
        both = [
            one.cpu().double().eval()(*args, **kwargs) for one in (lazy_copy(model), apply_lazily(model, found.plan))
        ]
    return Check(name="whole model, eval", outcome="measured", value=relative_error(*both), detail="not exact")


def _unproved(found: Scaling) -> tuple[Check, ...]:
    detail = "level site: scaling is only proved on the whole model; --proof model runs it"
    return (_named(Check(name="whole model", outcome="not run", detail=detail), found),)


def _named(check: Check, found: Scaling) -> Check:
    return check.model_copy(update={"name": f"scaled ({found.plan.rulebook}): {check.name}"})


def _words(found: Scaling, checks: tuple[Check, ...]) -> str:
    worst = max((c.value for c in checks if c.value is not None and "whole model" in c.name), default=None)
    if not found.exact:
        return f"{found.words}; another function: what was taken out is lost, train it"
    if worst is None or failed(checks):
        return f"{found.words}; same function by claim, not proved on the whole model"
    return f"{found.words}; same function to {worst:.0e}"
