"""All checks of a conversion, at the level that the model's size allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from spdify.engine.channels import exact_part
from spdify.errors import CheckFailedError, TraceError, memory_ran_out
from spdify.graph.sites import Survey, survey
from spdify.graph.structure import lazy_copy
from spdify.records import Check
from spdify.sources.random_state import seeded
from spdify.verification.carried_proof import prove_carried
from spdify.verification.compare import relative_error, shows_input, tensors_of
from spdify.verification.comparison import replaced_modules
from spdify.verification.inside import compare_inside, find_watched
from spdify.verification.model_proof import MODEL_CHECKS, UNLIKE, prove_model
from spdify.verification.site_proof import prove_sites
from spdify.verification.structure import eyes_agree, nothing_left, untouched_tensors

if TYPE_CHECKING:
    from spdify.records import Measure, Plan
    from spdify.verification.inside import Agreement
    from spdify.verification.model_proof import MakeInputs

ProofLevel: TypeAlias = Literal["model", "site"]
PROOF_LEVELS: tuple[str, ...] = ("auto", *get_args(ProofLevel))

#: Above these the whole model is not run in float64 unless asked for: two copies and their activations would not fit.
MAX_PROOF_PARAMS = 250_000_000
MAX_PROOF_MACS = 100_000_000_000

#: They catch a wrong weight; rounding through a deep network stays some hundred times below. Of half precision nothing
#: is asserted: its rounding alone may come near a wrong weight.
OWN_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-9}
ROUNDING_SHARE = 10.0  # the conversion rounds as often as the original, in another order


@dataclass
class Proof:
    """What was proved.

    Attributes:
        level: `model`, or `site` for models too large to be run whole in float64.
        checks: All checks.
        after: Survey of the converted model.
        state: Random weights of the converted model for further comparisons (ONNX); empty at level `site`.
    """

    level: ProofLevel
    checks: tuple[Check, ...]
    after: Survey
    state: dict[str, Tensor] = field(default_factory=dict)


def choose_level(wanted: str, measure: Measure) -> ProofLevel:
    """Give the level of proof: as wanted, or by size for `auto`."""
    if wanted == "model":
        return "model"
    if wanted == "site" or measure.params > MAX_PROOF_PARAMS or measure.macs > MAX_PROOF_MACS:
        return "site"
    return "model"


def prove(  # noqa: PLR0913 - both models, how they were made, how to run them
    model: nn.Module,
    converted: nn.Module,
    plan: Plan,
    before: Survey,
    make_inputs: MakeInputs,
    *,
    level: ProofLevel,
    seed: int,
) -> Proof:
    """Check every claim of a conversion.

    Args:
        model: The original; not changed.
        converted: Its conversion; not changed.
        plan: What was done.
        before: Survey of the original.
        make_inputs: Gives inputs of a batch of at least 2 in a dtype.
        level: How far to go.
        seed: Of all random numbers.
    """
    with seeded(seed):
        after = _survey_converted(converted, plan, before)
        checks = [
            eyes_agree("two eyes, before", before),
            eyes_agree("two eyes, after", after),
            nothing_left(plan, before, after),
            untouched_tensors(model, converted, plan),
            *prove_sites(model, plan, seed=seed),
            *prove_carried(model, plan, seed=seed),
        ]
        run_model = level == "model"
        whole = (
            prove_model(model, plan, make_inputs, seed=seed, eval_only=before.eval_only, exact=exact_part(plan, before))
            if run_model
            else None
        )
        checks += whole.checks if whole is not None else _not_run()
        checks.append(_own_weights(model, converted, plan, make_inputs))
    return Proof(level, tuple(checks), after, whole.state if whole is not None else {})


def _survey_converted(converted: nn.Module, plan: Plan, before: Survey) -> Survey:
    """Look at the result; that it does not even run is a fault of the conversion, not of the inputs."""
    try:
        after = survey(converted, plan.inputs)
    except TraceError as error:
        raise _does_not_run(error.message) from error
    if after.eval_only and not before.eval_only:
        raise _does_not_run(after.eval_only)
    return after


def _does_not_run(why: str) -> CheckFailedError:
    return CheckFailedError(
        f"the converted model does not run: {why}",
        hint="Does the network look at a convolution that was replaced (its class or attributes)? Keep that site: "
        "write a rulebook whose rules exclude its path.",
    )


def _not_run() -> list[Check]:
    reason = "level site: every site is proved on its own; --proof model runs the whole model too, whatever its size"
    return [Check(name=name, outcome="not run", detail=reason) for name in MODEL_CHECKS]


def _own_weights(model: nn.Module, converted: nn.Module, plan: Plan, make_inputs: MakeInputs) -> Check:
    """Compare with the weights as they are, in the model's own precision, on the CPU."""
    exact = all(d.claim is not None and d.claim.value == "exact" for d in plan.applied)
    dtype = next((t.dtype for t in _floating(model)), torch.float32)
    name = f"own weights, {str(dtype).removeprefix('torch.')}"
    expected, fault = _try_copy(model, dtype, make_inputs)
    if fault is not None:
        return Check(name=name, outcome="not run", detail=f"the original does not run on the CPU: {fault}")
    actual, fault = _try_copy(converted, dtype, make_inputs)
    if fault is not None:
        return Check(name=name, outcome="failed", detail=f"the converted model does not run: {fault}")
    error, detail = relative_error(expected, actual), ""
    tolerance = OWN_TOLERANCES.get(dtype, 0.0)
    shown = error <= tolerance and _is_by_image(expected, make_inputs(dtype)) and shows_input(expected, tolerance)
    if exact and dtype in OWN_TOLERANCES and not shown:
        inside = _compare_inside(model, converted, plan, dtype, make_inputs)
        if inside is not None:
            return _judge_inside(name, inside, tolerance)
    if not exact or dtype not in OWN_TOLERANCES:
        return _measured(name, error)
    if error > tolerance and dtype == torch.float32:
        # With these weights the network itself may be so steep that rounding alone moves its output further.
        precise = tensors_of(_run_copy(model, torch.float64, make_inputs))
        rounding = relative_error(precise, _in_float64(expected))
        if math.isfinite(rounding) and ROUNDING_SHARE * rounding > tolerance:
            tolerance = ROUNDING_SHARE * rounding
            detail = f"rounding alone moves the original by {rounding:.1e} with these weights"
    passed = error <= tolerance
    if passed and not shows_input(expected, tolerance):
        detail = "with these weights the output hardly depends on the input: comparing it proves nothing"
        return Check(name=name, outcome="not run", value=error, detail=detail)
    return Check(name=name, outcome="passed" if passed else "failed", value=error, tolerance=tolerance, detail=detail)


def _measured(name: str, error: float) -> Check:
    """Give a figure that nothing is asserted of, if there is one."""
    if not math.isfinite(error):
        return Check(name=name, outcome="not run", detail=UNLIKE)
    return Check(name=name, outcome="measured", value=error)


def _is_by_image(output: object, inputs: tuple[tuple[Tensor, ...], dict[str, Tensor]]) -> bool:
    """Whether the output has the images on its first axes; that of a detector has what it has found."""
    args, kwargs = inputs
    batch = next((x.shape[0] for x in (*args, *kwargs.values())), 0)
    return all(t.dim() and t.shape[0] == batch for t in tensors_of(output))


def _compare_inside(
    model: nn.Module, converted: nn.Module, plan: Plan, dtype: torch.dtype, make_inputs: MakeInputs
) -> Agreement | None:
    """Compare inside where something is chosen; None where that is of no use."""
    models = [lazy_copy(one).cpu().eval() for one in (model, converted)]
    args, kwargs = make_inputs(dtype)

    def run(one: nn.Module) -> Any:  # noqa: ANN401 - what models give
        with seeded(0):
            return one(*args, **kwargs)

    replaced = replaced_modules(plan)
    watched, chooses = find_watched(models[0], run, replaced)
    if not watched or not chooses:
        return None
    sites = [d.site.path for d in plan.applied]
    return compare_inside((models[0], models[1]), run, watched, replaced, covering=sites)


def _judge_inside(name: str, inside: Agreement, tolerance: float) -> Check:
    """Judge what two models with their own weights compute inside."""
    if inside.error > tolerance or inside.complete:
        outcome: Literal["passed", "failed"] = "passed" if inside.error <= tolerance else "failed"
        return Check(name=name, outcome=outcome, value=inside.error, tolerance=tolerance, detail=inside.detail)
    return Check(name=name, outcome="not run", value=inside.error, detail=inside.detail)


def _try_copy(model: nn.Module, dtype: torch.dtype, make_inputs: MakeInputs) -> tuple[object, Exception | None]:
    """Run a copy; give its outputs, or its fault, such as that of AvgPool3d in half precision."""
    try:
        return _run_copy(model, dtype, make_inputs), None
    except Exception as fault:
        if memory_ran_out(fault):
            raise
        return None, fault


def _run_copy(model: nn.Module, dtype: torch.dtype, make_inputs: MakeInputs) -> Any:  # noqa: ANN401 - what models give
    """Run a copy in eval mode: running a model may fill its caches, and call its owner's hooks."""
    copied = lazy_copy(model).cpu().eval()
    if dtype == torch.float64:
        copied.double()
    args, kwargs = make_inputs(dtype)
    with torch.no_grad(), seeded(0):
        return copied(*args, **kwargs)


def _floating(model: nn.Module) -> list[Tensor]:
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]


def _in_float64(output: object) -> list[Tensor]:
    return [tensor.double() for tensor in tensors_of(output)]
