"""Blur pooling (arXiv 1904.11486): a binomial filter before positions are dropped, so that less of a shift is lost.

An operator with stride s becomes the same operator with stride 1 and a blur with stride s. Where the operator gives m
positions, it gives some s·(m - 1) + 1 with stride 1, of which the blur makes m again, for every size. The filters are
fixed, so they are no tensors: they are computed at each run, in the input's precision, which holds them exactly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.phases import per_axis, same_padding, split_axis
from spdify.blocks.spd_conv import CONVOLUTIONS, flat_padding
from spdify.blocks.unstrided_conv import UnstridedConv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class BlurWindow(NamedTuple):
    """A blur's window, one entry per spatial axis; a tuple, so that fx can take it for an argument.

    Attributes:
        stride: Steps.
        taps: Of the binomial filter; 1 is none.
        padding_mode: `reflect`, `replicate` or `zeros`, around the map that is blurred.
    """

    stride: tuple[int, ...]
    taps: tuple[int, ...]
    padding_mode: str = "replicate"


def centred_blur(stride: Sequence[int], taps: int, padding_mode: str) -> BlurWindow:
    """Give the blur with this odd number of taps along every axis that is stepped over."""
    if taps < 1 or taps % 2 == 0:
        raise ValueError(f"a centred filter has an odd number of taps, got {taps}")
    return BlurWindow(tuple(stride), tuple(taps if s > 1 else 1 for s in stride), padding_mode)


def binomial_filter(taps: Sequence[int], like: Tensor) -> Tensor:
    """Give the outer product of Pascal's rows, with sum 1, of shape `taps`."""
    filters = torch.ones((), dtype=like.dtype, device=like.device)
    for count in taps:
        row = [math.comb(count - 1, k) / 2 ** (count - 1) for k in range(count)]
        filters = filters.unsqueeze(-1) * torch.tensor(row, dtype=like.dtype, device=like.device)
    return filters


@torch.fx.wrap
def blur(x: Tensor, window: BlurWindow) -> Tensor:
    """Blur with a stride, output i centred at position s·i; one node in any fx trace.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        window: Of the blur, with odd numbers of taps.

    Returns:
        (N, C, *out) with out = floor((n - 1) / s) + 1.
    """
    return _blurred(x, window, [(count - 1) // 2 for count in window.taps], [-1] * len(window.taps))


def _blurred(x: Tensor, window: BlurWindow, low: Sequence[int], excess: Sequence[int]) -> Tensor:
    """Blur with output 0 reading from position -low on, and floor((n + excess) / s) + 1 outputs."""
    dims = len(window.stride)
    # The same for every size, so that an export may leave sizes open.
    pads = [(below, e + taps - below) for taps, below, e in zip(window.taps, low, excess, strict=True)]
    outside = [(max(below, 0), max(above, 0)) for below, above in pads]
    inside = [(min(below, 0), min(above, 0)) for below, above in pads]
    if any(map(any, outside)):
        mode = "constant" if window.padding_mode == "zeros" else window.padding_mode
        x = F.pad(x, flat_padding(outside), mode=mode)
    if any(map(any, inside)):  # a pool's window may reach further than the filter
        x = F.pad(x, flat_padding(inside))
    channels = x.shape[-dims - 1]
    weight = binomial_filter(window.taps, x).expand(channels, 1, *window.taps)
    return CONVOLUTIONS[dims](x, weight, None, stride=window.stride, groups=channels)


class BlurredConv(UnstridedConv):
    """A strided convolution as one of stride 1 and a blur; a convolution of one tap runs after the blur.

    Args:
        arguments: Those of `UnstridedConv`.
        taps: Of the binomial filter, odd.
        blur_padding: `reflect`, `replicate` or `zeros`, around the map that is blurred.
        named: Those of `UnstridedConv`.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output with the sizes of the strided convolution.

    Attributes:
        weight: The strided convolution's own, and so is `bias`.
    """

    def __init__(self, *arguments: Any, taps: int = 3, blur_padding: str = "replicate", **named: Any) -> None:  # noqa: ANN401 - those of the base
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them."""
        super().__init__(*arguments, **named)
        self.blur = centred_blur(self.stride, taps, blur_padding)

    def reduce(self, x: Tensor) -> Tensor:
        """Blur."""
        return blur(x, self.blur)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{super().extra_repr()}, taps={max(self.blur.taps)}, blur_padding={self.blur.padding_mode!r}"


class PoolWindow(NamedTuple):
    """A strided pool's window, one entry per spatial axis; a tuple, so that fx can take it for an argument.

    Attributes:
        kernel: Taps.
        stride: Steps.
        padding: Positions on either side.
        dilation: Distance between taps.
        ceil_mode: Whether the output size is rounded up.
        same: Whether it pads by the size of each input, as TensorFlow does; then there is no other padding.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    same: bool = False

    @property
    def extent(self) -> list[int]:
        """Positions from the first tap to the last."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    @property
    def excess(self) -> list[int]:
        """The e of the output size floor((n + e) / s) + 1, by axis."""
        if self.same:
            return [-1] * len(self.kernel)
        numbers = zip(self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return [split_axis(*axis, ceil_mode=self.ceil_mode).excess for axis in numbers]

    def pads(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """Give the padding, low and high per axis, for an input of these sizes."""
        return same_padding(spatial, self.extent, self.stride) if self.same else [(p, p) for p in self.padding]


@torch.fx.wrap
def dense_max_pool(x: Tensor, window: PoolWindow) -> Tensor:
    """Take maxima at every position; output s·i has those of output i of the strided pool.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        window: Of the strided pool.

    Returns:
        (N, C, *out): of sizes of which every s-th position from 0 on are as many as the strided pool gives.
    """
    dims = len(window.kernel)
    pool, spatial = MAX_POOLS[dims], x.shape[-dims:]
    if not (window.ceil_mode or window.same):
        return pool(x, window.kernel, 1, window.padding, window.dilation)
    if window.same:
        pads = window.pads(spatial)
    else:  # windows reach past the padding, but begin at the last position, at most
        pads = [(p, e + reach - p) for p, e, reach in zip(window.padding, window.excess, window.extent, strict=True)]
    return pool(F.pad(x, flat_padding(pads), value=-math.inf), window.kernel, 1, 0, window.dilation)


@torch.fx.wrap
def blur_in_place_of_mean(x: Tensor, window: PoolWindow, blur_window: BlurWindow) -> Tensor:
    """Blur where an average pool's windows have their centres; one node in any fx trace.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        window: Of the average pool.
        blur_window: With odd numbers of taps where the pool's kernel is odd, even ones where that is even.

    Returns:
        (N, C, *out) with the pool's sizes.
    """
    spatial = x.shape[-len(window.kernel) :]
    starts = zip(window.pads(spatial), blur_window.taps, window.kernel, strict=True)
    return _blurred(x, blur_window, [low + (taps - k) // 2 for (low, _), taps, k in starts], window.excess)


class BlurredPool(nn.Module):
    """What both pools hold.

    Args:
        kernel_size: Of the strided pool, and so are `stride`, `padding`, `dilation` and `ceil_mode`.
        dims: Spatial axes, for numbers that are given once.
        same: Whether it pads as TensorFlow does, by the size of each input.
        taps: Of the binomial filter, odd.
        blur_padding: `reflect`, `replicate` or `zeros`, around the map that is blurred.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output with the sizes of the strided pool.
    """

    OPAQUE = True

    def __init__(  # noqa: PLR0913 - a pool's arguments
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        ceil_mode: bool = False,
        same: bool = False,
        dims: int = 2,
        taps: int = 3,
        blur_padding: str = "replicate",
    ) -> None:
        """Take the window."""
        super().__init__()
        kernel, steps, pads, spread = (per_axis(value, dims) for value in (kernel_size, stride, padding, dilation))
        self.window = PoolWindow(kernel, steps, pads, spread, ceil_mode, same)
        self.blur = centred_blur(self.window.stride, taps, blur_padding)

    @property
    def by_size(self) -> bool:
        """Whether it pads by the size of each input."""
        return self.window.same

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        window = ", ".join(f"{name}={value}" for name, value in self.window._asdict().items() if value)
        return f"{window}, taps={max(self.blur.taps)}, blur_padding={self.blur.padding_mode!r}"


class BlurredMaxPool(BlurredPool):
    """A strided max pool as one of stride 1 and a blur: MaxBlurPool of arXiv 1904.11486, section 3.2.

    Arguments and shapes are those of `BlurredPool`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return blur(dense_max_pool(x, self.window), self.blur)


class BlurredAvgPool(BlurredPool):
    """A blur in the place of a strided average pool, which is a blur with equal weights.

    An average pool of an even kernel has its centre between two positions: there the filter has one tap more.
    Padding, and what the pool divides by, are the blur's own. Arguments and shapes are those of `BlurredPool`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return blur_in_place_of_mean(x, self.window, self.aligned)

    @property
    def aligned(self) -> BlurWindow:
        """The blur, with its centres where the pool's are."""
        pairs = zip(self.blur.taps, self.window.kernel, strict=True)
        return self.blur._replace(taps=tuple(taps + (taps - k) % 2 for taps, k in pairs))


class BlurredActivation(nn.Module):
    """An activation, then a blur: what follows a strided convolution that lost its stride.

    Args:
        act: The activation.
        stride: Of the convolution, one per axis.
        taps: Of the binomial filter, odd.
        blur_padding: `reflect`, `replicate` or `zeros`, around the map that is blurred.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output (N, C, *out) with out = floor((n - 1) / s) + 1.
    """

    OPAQUE = True

    def __init__(
        self, act: nn.Module, stride: Sequence[int] = (2, 2), *, taps: int = 3, blur_padding: str = "replicate"
    ) -> None:
        """Take the activation."""
        super().__init__()
        self.act = act
        self.blur = centred_blur(stride, taps, blur_padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return blur(self.act(x), self.blur)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"stride={self.blur.stride}, taps={max(self.blur.taps)}, blur_padding={self.blur.padding_mode!r}"
