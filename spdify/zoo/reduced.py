"""The whole-model proof, on an input as small as the network takes.

A proof in float64 costs some ten forward passes. What it shows (the right weights in every site) does not depend on the
size of the image, so the network is run on a small one, built for it where it takes one size only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from spdify.errors import SpdifyError
from spdify.graph import fingerprint
from spdify.sources import BuildOptions, build, example_inputs
from spdify.verification.carried_proof import prove_carried
from spdify.verification.model_proof import prove_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from spdify.records import Check, Inputs, Plan
    from spdify.sources import LoadedModel

SIZES = (96, 112, 128, 160, 192, 224, 256)  # multiples of 32 first of all, then of 14, 28 and 7
ATTEMPTS = 5
PROOF_BATCH = 2


@dataclass
class ReducedProof:
    """What was proved on which inputs.

    Attributes:
        inputs: Of the model at batch 1.
        checks: Of the whole model.
        model: The original, built for these inputs.
        plan: The plan, for this model.
        state: Random weights of the converted model.
        original_state: The same of the original.
    """

    inputs: Inputs
    checks: tuple[Check, ...]
    model: nn.Module
    plan: Plan
    state: dict[str, Tensor]
    original_state: dict[str, Tensor]

    @property
    def ran(self) -> bool:
        """Whether both models ran, in both modes."""
        return not any(c.outcome == "not run" and "does not run" in c.detail for c in self.checks)


def sizes_to_try(inputs: Inputs) -> Iterator[tuple[int, ...] | None]:
    """Give the sizes (C, H, W) that a model of these inputs is tried on; None is its own."""
    full = inputs.args[0].shape[1:] if len(inputs.args) == 1 and not inputs.kwargs else ()
    if len(full) >= 3 and full[-1] == full[-2]:  # noqa: PLR2004 - channels, height and width
        smaller = [size for size in SIZES if size < full[-1]]
        yield from ((*full[:-2], size, size) for size in smaller[: ATTEMPTS - 1])
    yield None


def build_reduced(name: str, plan: Plan, size: tuple[int, ...] | None, *, seed: int) -> tuple[LoadedModel, Plan]:
    """Build a model for a size, with random weights, and give it the plan that was made at its own size.

    Raises:
        SpdifyError: It cannot be built so, or lacks a site of the plan.
    """
    loaded = build(name, BuildOptions(input_size=size, seed=seed))
    for decision in plan.applied:
        try:
            loaded.model.get_submodule(decision.site.path)
        except AttributeError as error:
            raise SpdifyError(f"cannot prove at {size}: there is no {decision.site.path} at that size") from error
    return loaded, plan.model_copy(update={"fingerprint": fingerprint(loaded.model), "inputs": loaded.inputs})


def prove_reduced(name: str, plan: Plan, *, seed: int, eval_only: str = "", exact: Plan | None = None) -> ReducedProof:
    """Prove the whole model on the smallest of the sizes on which it runs.

    Args:
        name: The model.
        plan: Made at its own size.
        seed: Of all random numbers.
        eval_only: Why the model does not run in train mode; empty where it does.
        exact: The plan without its approximate sites.

    Raises:
        SpdifyError: It can be built for none of them.
    """
    best: ReducedProof | None = None
    fault: SpdifyError | None = None
    for size in sizes_to_try(plan.inputs):
        try:
            loaded, own_plan = build_reduced(name, plan, size, seed=seed)
        except SpdifyError as error:
            fault = error
            continue
        inputs = _proof_inputs(loaded.inputs, seed)
        own_exact = _for_model(exact, own_plan) if exact is not None else None
        proof = prove_model(loaded.model, own_plan, inputs, seed=seed, eval_only=eval_only, exact=own_exact)
        checks = (*prove_carried(loaded.model, own_plan, seed=seed), *proof.checks)
        found = ReducedProof(loaded.inputs, checks, loaded.model, own_plan, proof.state, proof.original)
        if found.ran:
            return found
        if best is None or _passed(found) > _passed(best):
            best = found
    if best is None:
        raise fault or SpdifyError(f"cannot prove {name}: it has no size to be tried on")
    return best


def _for_model(plan: Plan, like: Plan) -> Plan:
    return plan.model_copy(update={"fingerprint": like.fingerprint, "inputs": like.inputs})


def _proof_inputs(inputs: Inputs, seed: int) -> Callable[[torch.dtype], tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
    return lambda dtype: example_inputs(inputs, batch=PROOF_BATCH, seed=seed, dtype=dtype)


def run_reduced(name: str, plan: Plan, *, seed: int) -> ReducedProof:
    """Find the smallest size on which a model runs, and prove nothing: for models too large to be run in float64.

    Raises:
        SpdifyError: It runs on none of them.
    """
    fault: Exception | None = None
    for size in sizes_to_try(plan.inputs):
        try:
            loaded, own_plan = build_reduced(name, plan, size, seed=seed)
            args, kwargs = example_inputs(loaded.inputs, batch=1, seed=seed)
            with torch.no_grad():
                loaded.model.eval()(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises at a size that it does not take
            fault = error
            continue
        return ReducedProof(loaded.inputs, (), loaded.model, own_plan, {}, {})
    raise SpdifyError(f"cannot run {name} at any size: {fault}")


def _passed(proof: ReducedProof) -> int:
    return sum(check.outcome == "passed" for check in proof.checks)
