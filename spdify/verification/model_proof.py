"""Proof of the whole model, in float64, with random norms, in train and in eval mode.

What is proved is the plan and the weight map: a copy of the original gets random norms, gains and constants, is converted by
`spdify.engine.apply`, and both run on the same inputs with the same random seed. 1e-9 relative is allowed: float64 rounding of
different summation orders stays near 1e-13 through a hundred layers, a wrong weight in a live site does not.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.engine import apply
from spdify.records import Check, Plan
from spdify.verification.compare import carries_signal, relative_error, tensors_of
from spdify.verification.islands import find_islands
from spdify.verification.randomised import jitter_statistics, randomise, whole_batch_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Decision

    MakeInputs = Callable[[torch.dtype], tuple[tuple[Tensor, ...], dict[str, Tensor]]]

MODEL_TOLERANCE = 1e-9
ISLAND_TOLERANCE = 1e-5  # float32 rounding through a network, where the model itself computes in float32
LIVE_THRESHOLD = 1e-6  # a thousand times the tolerance: what moves the output less is not proved by it


@dataclass
class ModelProof:
    """Checks of the whole model, and the random weights that they were made with.

    Attributes:
        checks: In the order in which they were made.
        state: The converted model's state dict with random norms, float64.
    """

    checks: tuple[Check, ...]
    state: dict[str, Tensor]


def prove_model(model: nn.Module, plan: Plan, make_inputs: MakeInputs, *, seed: int) -> ModelProof:
    """Compare a model with its conversion.

    Args:
        model: The original; not changed.
        plan: Its plan.
        make_inputs: Gives positional and named inputs of a batch of at least 2, floating ones in the dtype asked for.
        seed: Of weights, inputs and dropout.
    """
    source = copy.deepcopy(model).cpu().double()
    randomise(source, seed=seed)
    approximate = _part(plan, exact=False)
    # Sites that do not claim to be exact are put into the reference too: the rest must then agree.
    reference = apply(source, approximate) if approximate.applied else source
    converted = apply(source, plan)
    inputs = make_inputs(torch.float64)
    checks = [*_train(reference, converted, plan, inputs, seed=seed)]
    jitter_statistics(reference, seed=seed + 1)
    _copy_buffers(reference, converted)
    checks.append(_eval(reference, converted, inputs))
    if approximate.applied:
        checks.append(_distance(source, converted, inputs))
    return ModelProof(tuple(checks), dict(converted.state_dict()))


def _part(plan: Plan, *, exact: bool) -> Plan:
    """Give the plan with only the applied decisions whose claim is, or is not, exact."""
    chosen = tuple(d for d in plan.applied if (d.claim is not None and d.claim.value == "exact") is exact)
    return plan.model_copy(update={"decisions": chosen})


def _run(model: nn.Module, inputs: tuple[tuple[Tensor, ...], dict[str, Tensor]], *, seed: int) -> Any:  # noqa: ANN401
    """Run with a seed of its own, so that dropout and stochastic depth draw the same for both."""
    args, kwargs = inputs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(*args, **kwargs)


def _train(reference: nn.Module, converted: nn.Module, plan: Plan, inputs: Any, *, seed: int) -> list[Check]:  # noqa: ANN401
    """Compare outputs and statistics in train mode, and look at the gradients of the new parameters."""
    reference.train()
    converted.train()
    with whole_batch_statistics(reference, converted):
        with torch.no_grad():
            expected = _run(reference, inputs, seed=seed)
        actual = _run(converted, inputs, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    loss = torch.stack([(y * torch.randn(y.shape, generator=generator).to(y)).sum() for y in tensors_of(actual)]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    scale = math.sqrt(sum(float(y.detach().square().sum()) for y in tensors_of(actual)))
    checks = [
        _verdict("whole model, train", expected, actual, lambda: find_islands(reference, inputs)),
        _statistics(reference, converted),
        *_gradients(converted, plan, scale, lambda: _run(converted, inputs, seed=seed), actual),
    ]
    converted.zero_grad(set_to_none=True)
    return checks


def _verdict(name: str, expected: object, actual: object, islands: Callable[[], tuple[str, ...]]) -> Check:
    """Judge one comparison of outputs."""
    error = relative_error(expected, actual)
    if not carries_signal(expected):
        return Check(name=name, outcome="not run", value=error, detail="the output is constant: comparing it proves nothing")
    if error <= MODEL_TOLERANCE:
        return Check(name=name, outcome="passed", value=error, tolerance=MODEL_TOLERANCE)
    found = islands()
    if found and error <= ISLAND_TOLERANCE:
        detail = f"the model computes in float32 at {', '.join(found[:5])}, so float64 shows no more"
        return Check(name=name, outcome="passed", value=error, tolerance=ISLAND_TOLERANCE, detail=detail)
    return Check(name=name, outcome="failed", value=error, tolerance=MODEL_TOLERANCE, detail="outputs differ")


def _statistics(reference: nn.Module, converted: nn.Module) -> Check:
    """Compare every buffer after a training step: running statistics most of all."""
    theirs = dict(converted.named_buffers())
    pairs = [(b, theirs[name]) for name, b in reference.named_buffers() if name in theirs and b.is_floating_point()]
    if not pairs:
        return Check(name="statistics, train", outcome="not run", detail="the model keeps no statistics")
    error = max(relative_error(a, b) for a, b in pairs)
    # Float32 islands show in the outputs' check; here they only widen what is allowed.
    outcome = "passed" if error <= MODEL_TOLERANCE else "failed"
    return Check(name="statistics, train", outcome=outcome, value=error, tolerance=MODEL_TOLERANCE)


def _copy_buffers(reference: nn.Module, converted: nn.Module) -> None:
    theirs = dict(converted.named_buffers())
    with torch.no_grad():
        for name, buffer in reference.named_buffers():
            if name in theirs:
                theirs[name].copy_(buffer)


def _eval(reference: nn.Module, converted: nn.Module, inputs: Any) -> Check:  # noqa: ANN401
    reference.eval()
    converted.eval()
    with torch.no_grad():
        expected, actual = _run(reference, inputs, seed=0), _run(converted, inputs, seed=0)
        return _verdict("whole model, eval", expected, actual, lambda: find_islands(reference, inputs))


def _distance(source: nn.Module, converted: nn.Module, inputs: Any) -> Check:  # noqa: ANN401
    """Say how far the network with its approximate sites is from the original."""
    _copy_buffers(converted, source.eval())
    with torch.no_grad():
        error = relative_error(_run(source, inputs, seed=0), _run(converted, inputs, seed=0))
    return Check(name="distance to the original", outcome="measured", value=error, detail="some sites do not claim to be exact")


def _gradients(
    converted: nn.Module,
    plan: Plan,
    scale: float,
    run: Callable[[], object],
    output: object,
) -> list[Check]:
    """Check that every site is live, and that every new parameter gets a gradient."""
    dead, idle, weakest = [], [], math.inf
    for decision in plan.applied:
        if "train" not in decision.site.modes:
            dead.append(f"{decision.site.path} (not run in train mode)")
            continue
        sensitivity, without = _site_gradient(converted, decision, scale)
        if sensitivity < LIVE_THRESHOLD and not _moves(converted, decision, run, output):
            dead.append(decision.site.path)
            continue
        weakest = min(weakest, sensitivity)
        idle += without
    live = Check(
        name="live sites",
        outcome="not run" if dead else "passed",
        value=weakest if weakest < math.inf else None,
        tolerance=LIVE_THRESHOLD,
        detail=f"the whole-model figures say nothing about {', '.join(dead)}" if dead else "",
    )
    gradients = Check(
        name="gradients",
        outcome="failed" if idle else "passed",
        detail=f"no gradient reaches {', '.join(idle[:5])}" if idle else "",
    )
    return [live, gradients]


def _site_gradient(converted: nn.Module, decision: Decision, scale: float) -> tuple[float, list[str]]:
    """Give how far one random perturbation of the site's weights, of their own size, moves the output (relative), and the names
    of parameters without gradient."""  # noqa: D205, D209 - one sentence
    generator = torch.Generator().manual_seed(0)
    effect, without = 0.0, []
    for name, parameter in converted.get_submodule(decision.site.path).named_parameters():
        gradient = parameter.grad
        if not parameter.requires_grad:
            continue
        if gradient is None or not gradient.isfinite().all() or not gradient.any():
            without.append(f"{decision.site.path}.{name}")
            continue
        sigma = parameter.detach().square().mean().sqrt()
        step = sigma * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        effect = max(effect, abs(float((gradient * step).sum())))
    return (effect / scale if scale else 0.0), without


def _moves(converted: nn.Module, decision: Decision, run: Callable[[], object], output: object) -> bool:
    """Perturb the site's weights and look whether the output moves: a gradient may be missing where an effect is not."""
    block = converted.get_submodule(decision.site.path)
    kept = {name: p.detach().clone() for name, p in block.named_parameters()}
    buffers = {name: b.clone() for name, b in converted.named_buffers()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            sigma = parameter.square().mean().sqrt()
            parameter += sigma * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        moved = relative_error(output, run()) > LIVE_THRESHOLD
        for name, parameter in block.named_parameters():
            parameter.copy_(kept[name])
        for name, buffer in converted.named_buffers():
            buffer.copy_(buffers[name])
    return moved
