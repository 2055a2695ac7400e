"""Proof of one site: the module that is there against the block that takes its place, in float64.

The site's own module gets random weights; the block gets them through the weight map. Outputs, and the gradients of the
input and of the original weights (through the map), must agree on sizes that the stride does and does not divide.
Outputs and gradients are scaled to 1, and 1e-10 is allowed: a sum of 10⁵ float64 products rounds to some 1e-13, a
misplaced tap is off by 1e-3 or more.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.engine import make_rewrite
from spdify.engine.carrying import old_channels
from spdify.graph.edits import CalledExpression
from spdify.graph.structure import lazy_copy
from spdify.records import Check
from spdify.verification.compare import relative_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Decision, Geometry, Layout, Plan, Site

SITE_TOLERANCE = 1e-10
BATCH = 2


def prove_sites(model: nn.Module, plan: Plan, *, seed: int) -> tuple[Check, ...]:
    """Prove every applied site on its own; sites with equal windows and parameters are proved once.

    Args:
        model: The original; not changed.
        plan: Its plan.
        seed: Of weights and inputs.

    Returns:
        One check per applied site, `site <path>`; `measured` where the claim is not exact.
    """
    known: dict[str, float] = {}
    # The largest first: what small ones leave of the heap is in pieces that no large one can use.
    for decision in sorted(plan.applied, key=lambda d: -_size(model.get_submodule(d.site.path))):
        key = what_is_proved(decision)
        if key not in known and not _starts_anew(decision):
            known[key] = site_error(original_of(model, decision), decision, seed=seed)
    return tuple(_check(decision, known.get(what_is_proved(decision))) for decision in plan.applied)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _starts_anew(decision: Decision) -> bool:
    return decision.claim is not None and decision.claim.value == "reinitialised"


def what_is_proved(decision: Decision) -> str:
    """Give all that the error of a site depends on, but for its seed: equal sites need one proof."""
    site = decision.site
    call = f"{site.operation} {site.expression} {site.axes} {site.starts} {site.rank}" if site.operation else ""
    window = f"{site.geometry!r} {site.type_name} {site.constants} {site.channels}"
    return f"{decision.rewrite} {decision.params} {window} {call}"


def _check(decision: Decision, error: float | None) -> Check:
    name = f"site {decision.site.name}"
    if error is None:
        return Check(name=name, outcome="not run", detail="reinitialised: another function on purpose")
    if decision.claim is None or decision.claim.value != "exact":
        return Check(name=name, outcome="measured", value=error, detail="not claimed to be exact")
    passed = error <= SITE_TOLERANCE
    return Check(name=name, outcome="passed" if passed else "failed", value=error, tolerance=SITE_TOLERANCE)


def trial_sizes(window: Geometry) -> list[tuple[int, ...]]:
    """Give three unequal spatial sizes per window that leave different remainders to the stride."""
    sizes = []
    for trial in range(3):
        size = []
        for axis in range(window.dims):
            k, s, d = window.kernel[axis], window.stride[axis], window.dilation[axis]
            least = max(d * (k - 1) + 1, window.padding[axis] + 1) + s
            remainder = (trial * max(1, s // 2) + axis) % max(s, 2)
            size.append(least + (remainder - least) % max(s, 2) + s * axis)
        sizes.append(tuple(size))
    return sizes


def site_error(module: nn.Module, decision: Decision, *, seed: int) -> float:
    """Give the largest relative error of a site's output and gradients over all trials.

    Args:
        module: The site's module, or its expression; not changed.
        decision: What is done to it.
        seed: Of weights and inputs.
    """
    if decision.rewrite is None or _starts_anew(decision):
        return math.inf  # its weights are not made from the old ones
    generator = torch.Generator().manual_seed(seed)
    rewrite = make_rewrite(decision.rewrite, decision.params, where=decision.site.name)
    old_module = _without_parameters(module).double()
    with torch.device("meta"):  # the weight map gives all that it needs
        block = rewrite.build(decision.site)
    old = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, p in old_module.named_parameters()
    }

    def weights() -> dict[str, Tensor]:
        made = rewrite.weights(decision.site, old)
        return {name: t.double() if t.is_floating_point() else t.clone() for name, t in made.items()}

    worst = 0.0
    for size in trial_sizes(decision.site.geometry):
        for shapes in rewrite.input_shapes(decision.site, size, batch=BATCH):
            inputs = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
            levels = decision.site.operator == "pyramid"
            completed = partial(rewrite.completed, decision.site)
            worst = max(
                worst, _trial(levels, decision.leaves, old_module, old, block, completed, weights, inputs, generator)
            )
    return worst


def _without_parameters(module: nn.Module) -> nn.Module:
    """Copy a module whose parameters take no memory: `functional_call` puts others in their place."""
    copied = lazy_copy(module).cpu()
    moved: dict[int, nn.Parameter] = {}  # tied parameters stay tied
    for part in copied.modules():
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            empty = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
            part.register_parameter(name, moved.setdefault(id(parameter), empty))
    return copied


def original_of(model: nn.Module, decision: Decision) -> nn.Module:
    """Give what a site computes before: its module, or the expression of a functional call.

    Where a block is inserted, that is what goes in. Where the expression reads variables of its method, it cannot be
    run alone: PyTorch's function with the window that was seen stands for it, and the proof of the whole model alone
    can show that the window was misread.
    """
    site = decision.site
    if site.inserted:
        return nn.Identity()
    if not site.operation:
        return model.get_submodule(site.path)
    rewrite = make_rewrite(decision.rewrite or "", decision.params, where=site.name)
    expression = CalledExpression(model.get_submodule(site.path), site.operation, site.operator)
    shapes = rewrite.input_shapes(site, trial_sizes(site.geometry)[0], batch=BATCH)[0]
    try:
        expression(*[torch.zeros(shape) for shape in shapes])
    except NameError:
        return SeenWindow(site)
    return expression


class SeenWindow(nn.Module):
    """PyTorch's function with the window of a site."""

    def __init__(self, site: Site) -> None:
        """Take the site of a functional call."""
        super().__init__()
        self.site = site

    def forward(self, x: Tensor, *weights: Tensor) -> Tensor:
        """Run the function."""
        window, site = self.site.geometry, self.site
        if site.operator == "slice":
            index = [slice(None)] * x.dim()
            for axis, start, step in zip(site.axes, site.starts, window.stride, strict=True):
                index[axis] = slice(start, None, step)
            return x[tuple(index)]
        function = getattr(F, f"{site.operator}{window.dims}d")
        if site.operator == "conv":
            bias = weights[1] if len(weights) > 1 else None
            result: Tensor = function(
                x, weights[0], bias, window.stride, window.padding, window.dilation, window.groups
            )
            return result
        named: dict[str, Any] = {"kernel_size": window.kernel, "stride": window.stride, "padding": window.padding}
        named |= {"ceil_mode": window.ceil_mode}
        if site.operator == "max_pool":
            named |= {"dilation": window.dilation}
        else:
            named |= {"count_include_pad": window.count_include_pad}
            named |= {"divisor_override": window.divisor_override} if window.dims > 1 else {}
        pooled: Tensor = function(x, **named)
        return pooled


def _trial(  # noqa: PLR0913 - two modules with their weights, and inputs
    is_pyramid: bool,
    leaves: Layout | None,
    module: nn.Module,
    old: dict[str, Tensor],
    block: nn.Module,
    completed: Callable[[Tensor], Tensor],
    weights: Callable[[], dict[str, Tensor]],
    inputs: list[Tensor],
    generator: torch.Generator,
) -> float:
    """Compare outputs, and the gradients of all inputs and original weights, for one set of inputs.

    A pyramid's levels are its inputs, and its outputs; a block's output is completed by its rewrite. Where more
    channels leave the block, the old ones among them are compared.
    """
    given = ([*inputs],) if is_pyramid else tuple(inputs)
    expected, actual = functional_call(module, old, given), functional_call(block, weights(), given)
    if is_pyramid:
        expected, actual = (torch.cat([level.flatten(1) for level in levels], dim=1) for levels in (expected, actual))
    else:
        actual = completed(actual)
    if leaves is not None and actual.shape[1] == leaves.new:
        actual = old_channels(actual, leaves)
    if expected.shape != actual.shape:
        return math.inf
    cotangent = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    error = relative_error(expected, actual)
    gradients = torch.autograd.grad(actual, [*inputs, *old.values()], cotangent)
    del actual  # and with it the new weights: of a large site's, few sets are held at once
    wanted = torch.autograd.grad(expected, [*inputs, *old.values()], cotangent)
    return max(error, *(relative_error(a, b) for a, b in zip(wanted, gradients, strict=True)))
