"""Shape adaptors (arXiv 2008.00892): a mixture of a pooled map and the map itself, whose weights give its size.

y = (1 - σ(a))·resize(pool(x)) + σ(a)·resize(x) has s·n positions along an axis of n, s = 1/2 + σ(a)/2: from the pool's
size (a → -∞, where it is the pool alone) to the map's own. Maps are resized by interpolating linearly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.learned_size import LearnedSize, Numbers, numbers_of
from spdify.blocks.unstrided_conv import UnstridedConv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spdify.blocks.dynamic_pool import Halves

HALF = 0.5
START = -6.0  # σ is 1/404: maps of up to 400 positions have the pool's size
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def positions(size: int, alpha: float, *, up: bool) -> int:
    """Give floor(s·size), at least 1; where halves are rounded up, floor(s·size + 1/2)."""
    scale = HALF + HALF / (1 + math.exp(-alpha))
    return max(math.floor(scale * size + (HALF if up else 0)), 1)


@torch.fx.wrap
def adapt_shape(x: Tensor, pooled: Tensor | None, alpha: Tensor | None, known: Numbers, up: Halves) -> Tensor:
    """Mix a map and what was pooled of it; one node in any fx trace.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        pooled: The same, of half the sizes; None for every second position.
        alpha: (1,), for all axes; None for what is known.
        known: What stands for it where it has no data.
        up: Whether halves are rounded up, by axis.

    Returns:
        (N, C, *out) with out between half of the positions and all of them.
    """
    (number,) = numbers_of(alpha, known)
    dims = len(up)
    if pooled is None:
        every_second: list[Any] = [slice(None, None, 2)] * dims
        pooled = x[(..., *every_second)]
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    number_of_x = torch.tensor(known, dtype=exact, device=x.device) if alpha is None else alpha.to(exact)
    share = number_of_x.sigmoid().to(x.dtype)
    size = [positions(n, number, up=halves_up) for n, halves_up in zip(x.shape[-dims:], up, strict=True)]
    return (1 - share) * _resized(pooled, size) + share * _resized(x, size)


def _resized(x: Tensor, size: list[int]) -> Tensor:
    """Interpolate linearly to a size, between the centres of positions."""
    dims = len(size)
    if list(x.shape[-dims:]) == size:
        return x
    if x.dim() == dims + 1:
        return _resized(x.unsqueeze(0), size).squeeze(0)
    return F.interpolate(x, size, mode=LINEAR[dims], align_corners=False)


class _Adaptor(LearnedSize):
    """What both blocks share.

    Attributes:
        alpha: (1,), a: the share of the map itself is σ(a); None where it does not lead.
    """

    OPAQUE = True
    PARAMETER: ClassVar[str] = "alpha"
    TRIALS: ClassVar[Numbers] = (-1.5, 0.4, -0.6, 1.3)
    up: Halves

    def shares(self) -> Tensor:
        """Give the share of the positions along each axis that is left, s."""
        learned = self.learned
        alpha = torch.tensor(self.known) if learned is None else learned
        return (HALF + HALF * alpha.sigmoid()).expand(len(self.up))


class AdaptedPool(_Adaptor):
    """A shape adaptor (arXiv 2008.00892) around a pool.

    Args:
        pool: Without weights; its output has half of the positions along each axis.
        dims: Spatial axes.
        up: Whether half of an odd size is rounded up, for all axes or by axis.
        start: a at the start.
        leads: Whether it has a parameter of its own; without one it follows another block (`follow`), or stays.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output (N, C, *out), out = floor(s·n), s = 1/2 + σ(a)/2.

    Attributes:
        alpha: (1,), a: the share of the map itself is σ(a); None where it does not lead.
    """

    def __init__(
        self,
        pool: nn.Module,
        dims: int = 2,
        *,
        up: bool | Sequence[bool] = False,
        start: float = START,
        leads: bool = True,
    ) -> None:
        """Take the pool."""
        super().__init__()
        self.pool = pool
        self.up = (up,) * dims if isinstance(up, bool) else tuple(up)
        self.begin((start,), leads=leads)

    def reset_parameters(self) -> None:
        """Set the parameter to its start."""
        self.reset_size()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return adapt_shape(x, self.pool(x), self.learned, self.seen(), self.up)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{len(self.up)}, up={self.up}, alpha={self.leader.known}"


class AdaptedConv(_Adaptor, UnstridedConv):
    """A strided convolution as one of stride 1 and a shape adaptor, whose pool takes every second position.

    A convolution of one tap runs after it.

    Args:
        arguments: Those of `UnstridedConv`.
        start: As in `AdaptedPool`, and so is `leads`.
        leads: See there.
        named: Those of `UnstridedConv`.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output at first with the sizes of the convolution of stride 2.

    Attributes:
        weight: The strided convolution's own, and so is `bias`.
        alpha: As in `AdaptedPool`.
    """

    def __init__(self, *arguments: Any, start: float = START, leads: bool = True, **named: Any) -> None:  # noqa: ANN401 - of the base
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them."""
        UnstridedConv.__init__(self, *arguments, **named)
        # The convolution with stride 2 has an output for every second one of stride 1, from the first on.
        self.up = (True,) * len(self.stride)
        self.begin((start,), leads=leads)

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does, and set the parameter to its start."""
        UnstridedConv.reset_parameters(self)
        self.reset_size()

    def reduce(self, x: Tensor) -> Tensor:
        """Adapt the shape."""
        return adapt_shape(x, None, self.learned, self.seen(), self.up)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{UnstridedConv.extra_repr(self)}, alpha={self.leader.known}"
