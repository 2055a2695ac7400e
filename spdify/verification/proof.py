"""All checks of a conversion, at the level that the model's size allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from spdify.graph.sites import Survey, survey
from spdify.records import Check
from spdify.verification.compare import relative_error
from spdify.verification.model_proof import ModelProof, prove_model
from spdify.verification.site_proof import prove_sites

if TYPE_CHECKING:
    from spdify.records import Measure, Plan
    from spdify.verification.model_proof import MakeInputs

ProofLevel: TypeAlias = Literal["model", "site"]
PROOF_LEVELS: tuple[str, ...] = ("auto", *get_args(ProofLevel))

#: Above these the whole model is not run in float64 unless asked for: two copies and their activations would not fit.
MAX_PROOF_PARAMS = 250_000_000
MAX_PROOF_MACS = 100_000_000_000

FLOAT32_TOLERANCE = 1e-3  # catches a wrong weight; rounding through a deep network stays some hundred times below


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
    after = survey(converted, plan.inputs)
    checks = [
        _eyes("two eyes, before", before),
        _eyes("two eyes, after", after),
        _census(plan, after),
        _names(model, converted, plan),
        *prove_sites(model, plan, seed=seed),
    ]
    whole = prove_model(model, plan, make_inputs, seed=seed) if level == "model" else None
    checks += whole.checks if whole is not None else _not_run()
    checks.append(_float32(model, converted, plan, make_inputs))
    return Proof(level, tuple(checks), after, whole.state if isinstance(whole, ModelProof) else {})


def _not_run() -> list[Check]:
    reason = "the model is too large to run whole in float64, or proof level site was asked for"
    return [
        Check(name=name, outcome="not run", detail=reason)
        for name in ("whole model, train", "whole model, eval", "live sites", "gradients")
    ]


def _eyes(name: str, seen: Survey) -> Check:
    """Trace and census must agree."""
    if seen.disagreements:
        return Check(name=name, outcome="failed", detail="; ".join(seen.disagreements[:5]))
    return Check(name=name, outcome="passed", value=float(len(seen.sites)), detail="sites seen by trace and census alike")


def _census(plan: Plan, after: Survey) -> Check:
    """Nothing may downsample afterwards but what the plan kept or refused; so converting again finds nothing."""
    allowed = {d.site.name for d in plan.decisions if d.action != "applied"}
    left = [site.name for site in after.sites if site.name not in allowed]
    lost = allowed - {site.name for site in after.sites}
    if left or lost:
        words = [f"still there: {', '.join(left)}"] if left else []
        words += [f"gone: {', '.join(sorted(lost))}"] if lost else []
        return Check(name="nothing left", outcome="failed", detail="; ".join(words))
    return Check(name="nothing left", outcome="passed", value=float(len(allowed)), detail="sites left, all kept or refused by the plan")


def _names(model: nn.Module, converted: nn.Module, plan: Plan) -> Check:
    """Every tensor outside the sites keeps its name and shape."""
    prefixes = tuple(f"{path}." for d in plan.applied for path in (d.site.path, *d.site.aliases))
    old = {k: v.shape for k, v in model.state_dict().items() if not k.startswith(prefixes)}
    new = {k: v.shape for k, v in converted.state_dict().items() if not k.startswith(prefixes)}
    if old != new:
        changed = sorted(k for k in old.keys() ^ new.keys() | {k for k in old.keys() & new.keys() if old[k] != new[k]})
        return Check(name="untouched names", outcome="failed", detail=", ".join(changed[:5]))
    return Check(name="untouched names", outcome="passed", value=float(len(old)), detail="tensors keep name and shape")


def _float32(model: nn.Module, converted: nn.Module, plan: Plan, make_inputs: MakeInputs) -> Check:
    """Compare with the weights as they are, in the model's own precision."""
    exact = all(d.claim is not None and d.claim.value == "exact" for d in plan.applied)
    first = next(model.parameters(), None)
    args, kwargs = make_inputs(first.dtype if first is not None else torch.float32)
    with torch.no_grad(), _in_eval(model) as one, _in_eval(converted) as other:
        error = relative_error(one(*args, **kwargs), other(*args, **kwargs))
    name = "own weights, float32" if first is None or first.dtype == torch.float32 else f"own weights, {first.dtype}"
    if not exact or (first is not None and first.dtype.itemsize < 4):  # noqa: PLR2004 - bytes of float32
        return Check(name=name, outcome="measured", value=error)
    return Check(
        name=name, outcome="passed" if error <= FLOAT32_TOLERANCE else "failed", value=error, tolerance=FLOAT32_TOLERANCE
    )


class _in_eval:  # noqa: N801 - used as a with-statement's verb
    """Run a model in eval mode and give each of its modules the mode it had."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modes = {module: module.training for module in model.modules()}

    def __enter__(self) -> nn.Module:
        return self._model.eval()

    def __exit__(self, *_: object) -> None:
        for module, mode in self._modes.items():
            module.training = mode


