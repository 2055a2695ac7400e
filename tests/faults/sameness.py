"""Whether two networks are the same: what they give, keep and learn, in float64 and in both modes.

It knows nothing of `spdify.verification`. What a plan says of channels that became more is taken from the plan.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spdify.engine.carrying import before_changes, changed_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spdify.records import Decision, Plan

BATCH = 3
#: Of the largest value of an output. Sums in another order differ by some 1e-15 in float64, and by 1e-12 through norms
#: over few positions; a wrong weight differs by far more.
TOLERANCE, SINGLE = 1e-9, 1e-6
#: A steep network moves as far as it likes: what it does itself, with inputs off by the last digit, is no fault.
NUDGE, STEEP, LARGEST, NOISE = 1e-15, 1e3, 1e-5, 1e-2


class _DroppedByShape(TorchFunctionMode):
    """Has dropout draw in the order of indices: the memory format that a block gives its map is no part of a claim."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.dropout:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


class WrongError(Exception):
    """What was promised does not hold; the message says what."""


def require(holds: bool, words: str) -> None:
    if not holds:
        raise WrongError(words)


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Give a copy in float64 whose every tensor is random: nothing is zero, or one, by chance of its start."""
    generator = torch.Generator().manual_seed(seed)
    source = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, tensor in source.state_dict().items():
            if not tensor.is_floating_point():
                continue
            normal = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var") or (tensor.dim() <= 1 and name.endswith(("weight", "gain"))):
                tensor.copy_(0.5 + normal.abs())
            elif tensor.dim() > 1:
                tensor.copy_(normal / max(tensor[0].numel(), 1) ** 0.5)
            else:
                tensor.copy_(0.3 * normal)
    return source


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def require_same_state(first: dict[str, Tensor], second: dict[str, Tensor], words: str) -> None:
    require(first.keys() == second.keys(), f"{words}: {sorted(first.keys() ^ second.keys())}")
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    require(not different, f"{words}: {different}")


def compare(
    source: nn.Module, converted: nn.Module, plan: Plan, *, exact: bool, seed: int, modes: Sequence[bool]
) -> None:
    """Run both networks in both modes on copies; where all is to be exact, they must agree.

    Raises:
        WrongError: They do not.
    """
    # Without a tensor of its own, a network does not say in what precision the new ones are to be made.
    tolerance = TOLERANCE if any(t.is_floating_point() for t in source.state_dict().values()) else SINGLE
    first, second = copy.deepcopy(source), copy.deepcopy(converted).double()
    _silence_dropout(first, plan)
    _silence_dropout(second, plan)
    for training in modes:
        one, other = _run(first, plan, training, seed), _run(second, plan, training, seed)
        other.buffers = before_changes(other.buffers, plan)
        words = "train" if training else "eval"
        if exact:
            _require_equal(one, other, partial(_run, first, plan, training, seed, NUDGE), tolerance, words)
        else:
            _require_alike(one, other, plan, words)
    if exact and True in modes:
        _require_same_gradients(first, second, plan, seed, tolerance)


@dataclass
class _Ran:
    outputs: list[Tensor]
    buffers: dict[str, Tensor]
    gradients: dict[str, Tensor]


def _inputs(plan: Plan, seed: int, nudge: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((BATCH, *plan.inputs.args[0].shape[1:]), generator=generator, dtype=torch.float64)
    return x * (1 + nudge * torch.randn(x.shape, generator=generator, dtype=torch.float64))


def _run(model: nn.Module, plan: Plan, training: bool, seed: int, nudge: float = 0.0, backward: bool = False) -> _Ran:
    """Run a network, and put its buffers back, so that the next run starts where this one did."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    ran = model.train(training)
    _hold_shared_norms(ran, plan)
    x = _inputs(plan, seed, nudge).requires_grad_(backward)
    torch.manual_seed(seed)
    with torch.set_grad_enabled(backward), _DroppedByShape():
        outputs = [leaf for leaf in tree_leaves(ran(x)) if isinstance(leaf, Tensor)]
    gradients: dict[str, Tensor] = {}
    if backward:
        named = {"x": x, **{name: p for name, p in ran.named_parameters() if p.requires_grad}}
        loss = sum(((y * _weights(y, seed)).sum() for y in outputs), start=torch.zeros((), dtype=torch.float64))
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        gradients = {name: g for name, g in zip(named, found, strict=True) if g is not None}
    after = {name: buffer.clone() for name, buffer in ran.named_buffers()}
    with torch.no_grad():
        for name, buffer in ran.named_buffers():
            buffer.copy_(kept[name])
    return _Ran(outputs, after, gradients)


def _weights(y: Tensor, seed: int) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _silence_dropout(model: nn.Module, plan: Plan) -> None:
    """Dropout over channels that became more draws other numbers; the claim is about the rest."""
    for adjustment in plan.adjustments:
        module = model.get_submodule(adjustment.path)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0


def _hold_shared_norms(model: nn.Module, plan: Plan) -> None:
    """Norms that phases share claim to be the same with their statistics held."""
    for adjustment in plan.adjustments:
        if adjustment.block == "SPDBatchNorm2d":
            model.get_submodule(adjustment.path).eval()


def _require_equal(one: _Ran, other: _Ran, nudged: Callable[[], _Ran], tolerance: float, words: str) -> None:
    """Outputs and buffers must agree, as far as the original agrees with itself."""
    require([y.shape for y in one.outputs] == [y.shape for y in other.outputs], f"{words}: other shapes")
    off = _distances(one, other)
    if max(off.values(), default=0.0) < tolerance:
        return
    moved = _distances(one, nudged())
    for name, distance in off.items():
        _require_within(distance, moved[name], tolerance, f"{words}: {name} differs")


def _require_within(distance: float, moved: float, tolerance: float, words: str) -> None:
    """Compare a distance with what rounding moves; what rounding alone makes (a norm of constants) is not compared."""
    allowed = min(max(tolerance, STEEP * moved), LARGEST)
    require(distance < allowed or moved >= NOISE, f"{words} by {distance:.1e}, allowed {allowed:.1e}")


def _distances(one: _Ran, other: _Ran) -> dict[str, float]:
    """Give how far apart outputs and buffers are, relative to the largest value of each."""
    pairs = enumerate(zip(one.outputs, other.outputs, strict=True))
    found = {f"output {i}": _off(a, b, float(a.detach().abs().max())) for i, (a, b) in pairs}
    return found | {
        name: _buffer_distance(name, one.buffers, other.buffers) for name in one.buffers if name in other.buffers
    }


def _off(a: Tensor, b: Tensor, scale: float) -> float:
    off = float((a - b).detach().abs().max())
    return off / max(scale, 1e-300) if off == off else float("inf")  # noqa: PLR0124 - NaN alone is not itself


def _buffer_distance(name: str, one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Relate a buffer to its size; a mean to its deviation, if that is larger: it may be zero."""
    a, b = one[name], other[name]
    if not a.numel() or not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    variance = one.get(name.removesuffix("mean") + "var")
    deviation = float(variance.max().sqrt()) if name.endswith("running_mean") and variance is not None else 0.0
    return _off(a, b, max(float(a.abs().max()), deviation))


def _require_alike(one: _Ran, other: _Ran, plan: Plan, words: str) -> None:
    """What is approximate gives something finite, of the same shape unless a pool is left out."""
    resized = any(decision.rewrite == "remove-pool" for decision in plan.applied)
    shapes = [[y.shape[:2] if resized else y.shape for y in ran.outputs] for ran in (one, other)]
    require(shapes[0] == shapes[1], f"{words}: other shapes, {shapes}")
    bad = any(
        bool(a.isfinite().all()) and not b.isfinite().all() for a, b in zip(one.outputs, other.outputs, strict=True)
    )
    require(not bad, f"{words}: not finite")


def _require_same_gradients(first: nn.Module, second: nn.Module, plan: Plan, seed: int, tolerance: float) -> None:
    """What no plan has touched learns as before, where the claims say so; so does the input."""
    if any(not _says_same(decision) for decision in plan.applied):
        return
    try:
        one = _run(first, plan, True, seed, backward=True)
    except RuntimeError:  # what it needs for its gradients it has itself overwritten: nobody can train it
        return
    other = _run(second, plan, True, seed, backward=True)
    prefixes = tuple(f"{path}." for d in plan.applied for path in d.site.block_paths)
    skipped = changed_tensors(plan.adjustments).keys()
    names = [name for name in one.gradients if not name.startswith(prefixes) and name not in skipped]
    # Gradients of biases before a norm are zero but for rounding: related to the largest of all.
    scale = max((float(g.abs().max()) for g in one.gradients.values()), default=0.0)
    for name in names:
        require(name in other.gradients, f"gradients: {name} gets none")
    off = {name: _off(one.gradients[name], other.gradients[name], scale) for name in names}
    worst = max(off, key=lambda name: off[name], default="")
    if not worst or off[worst] < tolerance:
        return
    steep = _run(first, plan, True, seed, NUDGE, backward=True)
    moved = max(_off(one.gradients[name], steep.gradients[name], scale) for name in names)
    _require_within(off[worst], moved, tolerance, f"gradients: {worst} differs")


def _says_same(decision: Decision) -> bool:
    return decision.claim is not None and decision.claim.training.startswith("same gradient")
