"""Proof of the whole model, in float64, with random norms, in train and in eval mode.

What is proved is the plan and the weight map: a copy of the original gets random norms, gains and constants, is
converted by `spdify.engine.apply`, and both run on the same inputs with the same random seed. 1e-9 relative is allowed:
float64 rounding of different summation orders stays near 1e-13 through a hundred layers, a wrong weight in a live site
does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spdify.engine import apply_lazily
from spdify.engine.carrying import after_changes
from spdify.engine.leading import choose_leaders
from spdify.errors import memory_ran_out
from spdify.graph.detectors import detector_of
from spdify.graph.structure import lazy_copy
from spdify.records import Check, Plan
from spdify.verification.carried_proof import without_dropout
from spdify.verification.compare import relative_error
from spdify.verification.comparison import Comparison
from spdify.verification.liveness import Trial, judge_sites
from spdify.verification.randomised import randomise, settle_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeInputs = Callable[[torch.dtype], tuple[tuple[Tensor, ...], dict[str, Tensor]]]

UNLIKE = "it puts out tensors of other shapes (another number of detections, say): there is no distance"
ROUSED = 0.1  # of a unit input, what comes of weights that are zero at the start, where they are to do something
MODEL_CHECKS = ("whole model, train", "statistics, train", "whole model, eval", "live sites", "gradients")


@dataclass
class ModelProof:
    """Checks of the whole model, and the random weights that they were made with.

    Attributes:
        checks: In the order in which they were made.
        state: The converted model's state dict with random norms, float64.
        original: The same of the original (with its approximate sites put in).
    """

    checks: tuple[Check, ...]
    state: dict[str, Tensor]
    original: dict[str, Tensor]


def prove_model(  # noqa: PLR0913 - the model, its plan, how to run it
    model: nn.Module, plan: Plan, make_inputs: MakeInputs, *, seed: int, eval_only: str = "", exact: Plan | None = None
) -> ModelProof:
    """Compare a model with its conversion.

    Args:
        model: The original; not changed.
        plan: Its plan.
        make_inputs: Gives positional and named inputs of a batch of at least 2, floating ones in the dtype asked for.
        seed: Of weights, inputs and dropout.
        eval_only: Why the original does not run in train mode; empty where it does.
        exact: The plan without its approximate sites, where there are some and channels change.
    """
    source = lazy_copy(model).cpu().double()
    switched_off = without_dropout(source, plan)
    randomise(source, seed=seed)
    # What the caller has frozen is proved like the rest, and the loss below needs something to differentiate.
    for parameter in source.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    approximate = _approximate(plan)
    proved, remark = plan, ""
    # Sites that do not claim to be exact are put into the reference too: the rest must then agree.
    # double(): where a model has no tensor of its own, the new ones are in PyTorch's default precision.
    reference = source
    if approximate.applied and exact is not None and _is_tangled(plan):
        # Their channels run into those of exact ones, or into modules that only one of both models would have.
        proved, remark = exact, "approximate sites are left out"
    elif approximate.applied:
        reference, remark = (
            apply_lazily(source, approximate).double(),
            "approximate sites are put into the original as well",
        )
    if switched_off:
        remark = "; ".join(filter(None, (remark, f"without dropout at {', '.join(switched_off)}")))
    trial = Trial(reference, apply_lazily(source, proved).double(), make_inputs(torch.float64), seed)
    compare = Comparison(trial, proved, remark)
    checks = _train(compare, source, eval_only)
    if compare.trained or eval_only:
        settle_statistics(reference, lambda: trial.run(reference), seed=seed + 1)
    _copy_buffers(reference, trial.converted, proved)
    checks.append(compare.outputs("eval"))
    judged = judge_sites(trial, proved, tolerance=compare.tolerance)
    if judged[0].outcome != "passed" and compare.ran and compare.look_inside():
        # Nothing was found by what these sites feed, say: inside, they can be seen.
        checks[-1] = compare.outputs("eval")
        judged = judge_sites(trial, proved, tolerance=compare.tolerance)
    checks += judged
    if plan.applied and len(approximate.applied) == len(plan.applied):
        checks = [_nothing_exact(check) for check in checks]
    if proved is not plan:
        trial = replace(trial, converted=apply_lazily(reference, plan).double())
    if approximate.applied:
        checks.append(_distance(source, trial))
    _rouse(trial.converted, plan, seed)
    return ModelProof(tuple(checks), dict(trial.converted.state_dict()), dict(reference.state_dict()))


def _rouse(converted: nn.Module, plan: Plan, seed: int) -> None:
    """Give blocks that start silent, in place, weights with which they do something: else an export proves little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for decision in plan.applied:
            for parameter in converted.get_submodule(decision.site.block_path).parameters():
                if not parameter.any():
                    normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(ROUSED / math.sqrt(max(parameter[0].numel(), 1)) * normal.to(parameter))


def _nothing_exact(check: Check) -> Check:
    """Say that a comparison of what is the same on both sides proves nothing."""
    if not check.name.startswith(("whole model", "statistics")) or check.outcome != "passed":
        return check
    return Check(name=check.name, outcome="not run", detail="no site claims to be exact")


def _train(compare: Comparison, source: nn.Module, eval_only: str) -> list[Check]:
    """Compare both models in train mode: what they give for images alone, or a detector's losses."""
    if not eval_only:
        return [compare.outputs("train"), compare.statistics()]
    detector = detector_of(source)
    if detector is None:
        untrained = Check(name="whole model, train", outcome="not run", detail=f"eval only: {eval_only}")
        return [untrained, compare.statistics()]
    return [*compare.losses(detector), compare.statistics()]


def _approximate(plan: Plan) -> Plan:
    """Give the plan with only the applied decisions that do not claim to be exact, and what follows them alone."""
    chosen = tuple(d for d in plan.applied if d.claim is None or d.claim.value != "exact")
    names = {d.site.name for d in chosen}
    following = tuple(a for a in plan.adjustments if names.issuperset(a.sites))
    return plan.model_copy(update={"decisions": tuple(choose_leaders(chosen)), "adjustments": following})


def _is_tangled(plan: Plan) -> bool:
    """Whether channels from sites that do not claim to be exact reach anything."""
    names = {d.site.name for d in _approximate(plan).applied}
    return any(names.intersection(a.sites) and (a.tensors or a.numbers) for a in plan.adjustments)


def _copy_buffers(reference: nn.Module, other: nn.Module, plan: Plan | None = None) -> None:
    """Give another model the buffers of the reference, grown where the channels of a plan reach them."""
    theirs, buffers = dict(other.named_buffers()), dict(reference.named_buffers())
    with torch.no_grad():
        for name, buffer in (after_changes(buffers, plan) if plan is not None else buffers).items():
            if name in theirs:
                theirs[name].copy_(buffer)


def _distance(source: nn.Module, trial: Trial) -> Check:
    """Say how far the network with its approximate sites is from the original."""
    _copy_buffers(trial.reference, source)
    source.eval()
    trial.converted.eval()
    name, detail = "distance to the original", "some sites do not claim to be exact"
    try:
        with torch.no_grad():
            distance = relative_error(trial.outputs(source), trial.outputs(trial.converted))
    except Exception as error:  # any fault of the user's model, which is reported
        if memory_ran_out(error):
            raise
        return Check(name=name, outcome="not run", detail=f"the original does not run in float64: {error}")
    if not math.isfinite(distance):
        return Check(name=name, outcome="not run", detail=UNLIKE)
    return Check(name=name, outcome="measured", value=distance, detail=detail)
