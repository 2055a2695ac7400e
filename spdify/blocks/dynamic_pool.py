"""DynOPool (arXiv 2205.15254): a pool that learns by how much it shrinks each axis.

With a ratio r, an axis of n positions gets round(n·r) cells of 1/r positions each. Cell i has its centre at
p = (i + 1/2)/r - 1/2, and holds the maximum of the map, interpolated linearly, at p ± 1/(4r) along every axis. All
these points are at (j + 1/2)/(2r) - 1/2, j = 0, 1 …: the map is resized to twice the cells, then comes a max pool of 2.
At r = 1/2 the points are the positions themselves: it is a max pool of 2. The ratio learns through the points.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch

from spdify.blocks.blurring import MAX_POOLS
from spdify.blocks.learned_size import LearnedSize, Numbers, numbers_of
from spdify.blocks.unstrided_conv import UnstridedConv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

HALF = 0.5
LEAST, MOST = 1 / 16, 1.0  # ratios beyond count as these
Halves: TypeAlias = tuple[bool, ...]


@torch.fx.wrap
def dynamic_pool(x: Tensor, ratio: Tensor | None, known: Numbers, up: Halves) -> Tensor:
    """Pool to a learned size; one node in any fx trace.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        ratio: (axes,), cells per position; None for those that are known.
        known: What stands for it where it has no data.
        up: Whether half a cell counts as one, by axis.

    Returns:
        (N, C, *out), out = round(n·r) and at least 1.
    """
    numbers = numbers_of(ratio, known)
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    ratios = torch.tensor(numbers, device=x.device, dtype=exact) if ratio is None else ratio.to(exact)
    steps = HALF / bounded(ratios)
    for i, (number, halves_up) in enumerate(zip(numbers, up, strict=True)):
        axis = i - len(numbers)
        x = _resampled(x, axis, 2 * cells(x.shape[axis], number, up=halves_up), steps[i])
    return MAX_POOLS[len(numbers)](x, 2)


def bounded(ratio: Tensor) -> Tensor:
    """Keep a ratio within its bounds; its gradient goes on beyond, so that it can come back."""
    return ratio + (ratio.clamp(LEAST, MOST) - ratio).detach()


def cells(size: int, ratio: float, *, up: bool) -> int:
    """Give round(size · ratio), halves up or down, and at least 1."""
    exact = size * min(max(ratio, LEAST), MOST)
    return max(math.floor(exact + HALF) if up else math.ceil(exact - HALF), 1)


def _resampled(x: Tensor, axis: int, count: int, step: Tensor) -> Tensor:
    """Interpolate linearly at `count` points along an axis; the edge value holds beyond it."""
    last = x.shape[axis] - 1
    points = (torch.arange(count, dtype=step.dtype, device=x.device) + HALF) * step - HALF
    points = points.clamp(0, last)
    below = points.detach().floor()
    share = (points - below).to(x.dtype).reshape(-1, *[1] * (-axis - 1))
    low = below.long()
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, (low + 1).clamp(max=last)) * share


class DynamicPool(LearnedSize):
    """DynOPool (arXiv 2205.15254): a max pool to a learned size, at first half of each axis, which is a max pool of 2.

    Args:
        dims: Spatial axes.
        up: Whether half a cell counts as one, for all axes or by axis: sizes at the start are then rounded up.
        leads: Whether it has a ratio of its own; without one it follows another block (`follow`), or stays as it is.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output (N, C, *out) with out = round(n · ratio) per axis.

    Attributes:
        ratio: (dims,), cells per position; below 1/16 and above 1 it counts as these. None where it does not lead.
    """

    OPAQUE = True
    PARAMETER: ClassVar[str] = "ratio"
    TRIALS: ClassVar[Numbers] = (0.39, 0.61, 0.45, 0.55)

    def __init__(self, dims: int = 2, *, up: bool | Sequence[bool] = False, leads: bool = True) -> None:
        """Make the block at a ratio of one half."""
        super().__init__()
        self.up: Halves = (up,) * dims if isinstance(up, bool) else tuple(up)
        self.begin((HALF,) * dims, leads=leads)

    def reset_parameters(self) -> None:
        """Set the ratio to one half."""
        self.reset_size()

    def shares(self) -> Tensor:
        """Give the ratio of each axis."""
        return bounded(self.known_or_learned())

    def known_or_learned(self) -> Tensor:
        """Give the parameter, or the numbers that it stays at."""
        learned = self.learned
        return torch.tensor(self.known) if learned is None else learned

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return dynamic_pool(x, self.learned, self.seen(), self.up)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{len(self.up)}, up={self.up}, ratio={self.leader.known}"


class DynamicConv(DynamicPool, UnstridedConv):
    """A strided convolution as one of stride 1 and DynOPool; a convolution of one tap runs after it.

    Args:
        arguments: Those of `UnstridedConv`.
        leads: As in `DynamicPool`.
        named: Those of `UnstridedConv`.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output at first with the sizes of the convolution of stride 2.

    Attributes:
        weight: The strided convolution's own, and so is `bias`.
        ratio: As in `DynamicPool`.
    """

    def __init__(self, *arguments: Any, leads: bool = True, **named: Any) -> None:  # noqa: ANN401 - of the bases
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them."""
        UnstridedConv.__init__(self, *arguments, **named)
        # The convolution with stride 2 has an output for every second one of stride 1, from the first on.
        self.up = (True,) * len(self.stride)
        self.begin((HALF,) * len(self.stride), leads=leads)

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does, and set the ratio to one half."""
        UnstridedConv.reset_parameters(self)
        self.reset_size()

    def reduce(self, x: Tensor) -> Tensor:
        """Pool to the learned size."""
        return dynamic_pool(x, self.learned, self.seen(), self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        return UnstridedConv.forward(self, x)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{UnstridedConv.extra_repr(self)}, ratio={self.leader.known}"
