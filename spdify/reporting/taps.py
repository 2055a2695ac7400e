"""Where the weights of a site went, and which positions its block reads.

Both are found out by trying, on the rewrite itself with as few channels as it takes: weights that are the numbers of
their taps show where each one comes to lie; random weights show which input positions have a part in the output.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from spdify.blocks.phases import split_axis
from spdify.engine import make_rewrite
from spdify.records import MAX_TAPS, Kernel, Taps, repeated, shortened
from spdify.sources.random_state import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from spdify.records import Decision, Geometry, Plan, Shape, Site
    from spdify.rewrites import Rewrite

MOST_TAPS = 1024  # of a kernel that is recorded; a patch embedding of 16×16 has 256
DRAWN_AXES = 2  # kernels over three axes are not
SMALL = 11  # channels to try a rewrite with: a number that no number of phases is taken for
TRIALS = 16  # of max pools: a ReLU may hide a position from one of them; all else is linear
SHIFT = 4096  # tells what was moved from what is always there
DIGITS = 4  # of recorded magnitudes


def kernels_of(model: nn.Module, converted: nn.Module, plan: Plan) -> tuple[Kernel, ...]:
    """Follow the weights of every applied site, as far as they can be followed.

    Sites that start with weights of their own have no entry, nor have those over three axes, with weights per sample,
    with more than 1,024 taps, or with more places for them than a report holds.

    Args:
        model: The original.
        converted: Its conversion.
        plan: What was done.
    """
    with torch.device("cpu"):
        found = [_kernel(model, converted, decision) for decision in plan.applied]
    return tuple(kernel for kernel in found if kernel is not None)


def _kernel(model: nn.Module, converted: nn.Module, decision: Decision) -> Kernel | None:
    site = decision.site
    window = site.geometry
    if window.dims > DRAWN_AXES or math.prod(window.kernel) > MOST_TAPS or _places(window) > MAX_TAPS:
        return None
    if decision.claim is None or decision.claim.value == "reinitialised":
        return None
    rewrite = make_rewrite(decision.rewrite or "", decision.params, where=site.name)
    small = small_site(site)
    shape = rewrite.reads(small).get("weight")
    if site.kind != "downsampling":
        return None  # nothing moves
    if shape is None:
        return _window(site) if not site.operation or site.operator != "conv" else None
    if len(shape) != window.dims + 2:
        return None
    old = model.get_submodule(site.path).state_dict()["weight"]
    state = converted.get_submodule(site.block_path).state_dict()
    moved, again = (rewrite.weights(small, _numbered(rewrite.reads(small), start)) for start in (1, 1 + SHIFT))
    after = [
        _taps(name, state[name], tensor, again[name], site)
        for name, tensor in moved.items()
        if tensor.dim() == window.dims + 2 and name in state and name != "gain"
    ]
    taps = tuple(range(math.prod(window.kernel)))
    before = Taps(
        tensor="weight", kernel=window.kernel, scale=(1,) * window.dims, origins=taps, fresh=(False,) * len(taps),
        sizes=_magnitudes(old, 1),
    )  # fmt: skip
    return Kernel(site=site.name, before=before, after=tuple(after))


def _places(window: Geometry) -> int:
    """Give a number that the places of no kernel after it exceed, also of a centred odd one."""
    axes = zip(window.kernel, window.stride, window.dilation, strict=True)
    return math.prod((2 * (d * (k - 1) // s) + 5) * s for k, s, d in axes)


def small_site(site: Site) -> Site:
    """Give the same site with few channels; with one alone there is nothing to standardise a weight over."""
    window = site.geometry
    update = {"in_channels": SMALL, "out_channels": SMALL, "groups": SMALL if window.depthwise else 1}
    return site.model_copy(update={"geometry": window.model_copy(update=update), "channels": ()})


def _numbered(shapes: Mapping[str, Shape], start: int) -> dict[str, Tensor]:
    """Give weights that are the numbers of their taps, from `start`; biases and gains that change nothing."""
    made = {}
    for name, shape in shapes.items():
        taps = math.prod(shape[2:])
        numbers = torch.arange(start, start + taps, dtype=torch.float64)
        made[name] = (
            numbers.repeat(math.prod(shape[:2])).reshape(shape)
            if name == "weight"
            else torch.ones(shape, dtype=torch.float64)
        )
    return made


def _taps(name: str, actual: Tensor, moved: Tensor, again: Tensor, site: Site) -> Taps:
    """Describe one tensor of a block, from what became of the numbers in it: in one channel, for all are alike."""
    stride, kernel = site.geometry.stride, tuple(moved.shape[2:])
    phased = moved.shape[1] in {math.prod(stride), SMALL * math.prod(stride)}
    scale = stride if phased else (1,) * len(stride)
    one, other = (tensor[0, : math.prod(scale)].flatten() for tensor in (moved, again))
    is_moved = (other - one - SHIFT).abs() < 0.5  # noqa: PLR2004 - they are whole numbers
    return Taps(
        tensor=name,
        kernel=kernel,
        scale=scale,
        origins=tuple(int(value) - 1 if there else -1 for value, there in zip(one, is_moved, strict=True)),
        fresh=tuple(bool(value) and not there for value, there in zip(one, is_moved.tolist(), strict=True)),
        sizes=_magnitudes(actual, math.prod(scale)),
    )


def _magnitudes(weight: Tensor, phases: int) -> tuple[float, ...]:
    """Give the root mean square over all channels, phase by phase and tap by tap; nothing where there is no data.

    Args:
        weight: (O, I·phases, *K), phases within channels.
        phases: Their number.
    """
    if weight.is_meta:
        return ()
    split = weight.detach().reshape(weight.shape[0], -1, phases, *weight.shape[2:])
    sizes = torch.linalg.vector_norm(split, dim=(0, 1), dtype=torch.float64) / math.sqrt(math.prod(split.shape[:2]))
    if not sizes.isfinite().all():
        return ()
    return tuple(float(f"{value:.{DIGITS}g}") for value in sizes.flatten().cpu().tolist())


def _window(site: Site) -> Kernel:
    """Describe the window of a pool or slice, which has no weights."""
    window = site.geometry
    starts = site.starts or (0,) * window.dims
    axes = [
        split_axis(k, s, p - start, d, ceil_mode=window.ceil_mode)
        for k, s, p, d, start in zip(window.kernel, window.stride, window.padding, window.dilation, starts, strict=True)
    ]
    scale, kernel = tuple(a.scale for a in axes), tuple(a.kernel for a in axes)
    numbers = torch.arange(math.prod(window.kernel)).reshape(window.kernel)
    where = {
        (tuple(axes[i].taps[t][1] for i, t in enumerate(tap)), tuple(axes[i].taps[t][0] for i, t in enumerate(tap))):
        int(numbers[tap])
        for tap in _indices(window.kernel)
    }  # fmt: skip
    origins = tuple(where.get((phase, tap), -1) for phase in _indices(scale) for tap in _indices(kernel))
    taps = tuple(range(math.prod(window.kernel)))
    return Kernel(
        site=site.name,
        before=Taps(tensor="", kernel=window.kernel, scale=(1,) * window.dims, origins=taps),
        after=(Taps(tensor="", kernel=kernel, scale=scale, origins=origins),),
    )


def _indices(shape: Shape) -> list[Shape]:
    """Give all indices of an array, row by row."""
    return [tuple(index) for index in torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist()]


class ReadPositions:
    """Finds the share of input positions that blocks read; equal ones once."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[str, float] = {}

    def share(self, decision: Decision) -> float:
        """Give the share for one applied site, smallest over all calls, once all of its weights may be used.

        Args:
            decision: Of the site.
        """
        site = small_site(decision.site)
        rewrite = make_rewrite(decision.rewrite or "", decision.params, where=site.name)
        dims = site.geometry.dims
        return min(self._of(rewrite, decision, site, call.input[-dims:]) for call in site.calls)

    def _of(self, rewrite: Rewrite[Any], decision: Decision, site: Site, size: Shape) -> float:
        what = f"{decision.rewrite} {decision.params} {site.geometry!r} {site.constants} {size}"
        what += f" {site.axes} {site.starts} {site.rank} {bool(site.operation)}"
        if what not in self._known:
            self._known[what] = _share_read(rewrite, site, size)
        return self._known[what]


def _share_read(rewrite: Rewrite[Any], site: Site, size: Shape) -> float:
    """Give the share of an input's positions that have a gradient, from what small inputs show.

    What a window reads is a product of what it reads along each axis, and repeats in the middle.
    """
    known: dict[Shape, tuple[int, ...]] = {}

    def read(sizes: Shape) -> tuple[int, ...]:
        if sizes not in known:
            known[sizes] = _positions_with_gradient(rewrite, site, sizes)
        return known[sizes]

    cycles = [site.geometry.cycle(axis, site.starts[axis] if site.starts else 0) for axis in range(len(size))]
    short = tuple(map(shortened, size, cycles))
    share = 1.0
    for axis, (n, cycle) in enumerate(zip(size, cycles, strict=True)):

        def count(m: int, axis: int = axis) -> int:
            return read((*short[:axis], m, *short[axis + 1 :]))[axis]

        share *= repeated(count, n, cycle) / n if n else 1.0
    return share


def _positions_with_gradient(rewrite: Rewrite[Any], site: Site, size: Shape) -> tuple[int, ...]:
    """Run a block with random weights on random inputs, and count the positions with a gradient along each axis."""
    with seeded(0), torch.device("cpu"), torch.inference_mode(mode=False), torch.enable_grad():
        block = rewrite.build(site)
        state = {name: torch.randn_like(tensor) for name, tensor in block.state_dict().items()}
        trials = TRIALS if site.operator == "max_pool" else 1
        first, *others = (torch.randn(shape) for shape in rewrite.input_shapes(site, size, batch=trials)[0])
        output = functional_call(block, state, (first.requires_grad_(), *others))
        (gradient,) = torch.autograd.grad(output, first, torch.randn_like(output))
    axes = site.axes if site.operator == "slice" else tuple(range(2, first.dim()))
    return tuple(int((gradient != 0).movedim(axis, 0).flatten(1).any(1).sum()) for axis in axes)
