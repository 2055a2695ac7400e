"""Max pooling as SPD → a ladder of depthwise convolutions and ReLUs, one axis after the other.

max(a, b) = b + relu(a - b). Along one axis the taps t₀, t₁, … of a window meet one after the other; h is by how much
the best of those before leads over the next:

    h₁ = relu(t₀ - t₁),   h₂ = relu((t₁ - t₂) + h₁),   …,   maximum = t_last + h_last.

Each difference, and the last tap, is a depthwise convolution over the phases of that axis: k of them, with s·K weights
a channel. The maximum over a window of several axes is taken over the rows, then over what they leave of the columns.

Padding with the edge value plays the part of -inf: with dilation 1 and padding at most half the kernel, the edge lies
inside every window that reaches past it. A dilated window may step over the edge; there the smallest value of each
channel takes its place, which no maximum over at least one real tap can lose to. Limits: an infinite input gives NaN,
and the rounding is that of the larger operand (float32 max(1, -1e8) gives 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.phases import Phases, check_pool_padding, per_axis, same_padding, space_to_depth, split_axis
from spdify.blocks.spd_conv import CONVOLUTIONS, AxisPadding, Form, flat_padding, strided_weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class MaxWindow(NamedTuple):
    """How an input is padded and cut into phases, one entry per spatial axis.

    Attributes:
        scale: Block size.
        kernel: Blocks per window.
        padding: Positions of padding below.
        excess: e of the output size floor((n + e) / s) + 1.
        extent: With same padding, positions from a window's first tap to its last; else empty.
        taps: Offsets of the pool's taps from the window's first, where the edge may lie outside a window; else empty.
    """

    scale: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: tuple[int, ...]
    excess: tuple[int, ...]
    extent: tuple[int, ...] = ()
    taps: tuple[tuple[int, ...], ...] = ()


@torch.fx.wrap
def spd_max_pool(
    x: Tensor, weights: Sequence[Tensor | None], window: MaxWindow, form: Form = "space_to_depth"
) -> Tensor:
    """Pad with what no maximum picks, then run one ladder per axis; one node in any fx trace.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        weights: Per axis (k, C, s, K), or None where the window is one tap wide and takes every position.
        window: How the input is padded and cut.
        form: As in `SPDConv`.
    """
    batched = x.dim() == len(window.scale) + 2
    y = _windows(x if batched else x.unsqueeze(0), window)
    for axis, weight in enumerate(weights):
        if weight is not None:
            y = _ladder(y, weight, axis, window.scale[axis], form)
    return y if batched else y.squeeze(0)


def _ladder(x: Tensor, weight: Tensor, axis: int, scale: int, form: Form) -> Tensor:
    """Take the maximum along one axis of (N, C, *spatial), whose size is a multiple of the scale."""
    dims, channels = x.dim() - 2, x.shape[1]
    step = [scale if i == axis else 1 for i in range(dims)]
    rungs = unfolded_rungs(weight, axis, dims)
    if form == "strided":
        stride, rungs = tuple(step), [strided_weight(rung, step) for rung in rungs]
    else:
        stride = (1,) * dims
        x = space_to_depth(x, step)
    *gaps, last = (CONVOLUTIONS[dims](x, rung, stride=stride, groups=channels) for rung in rungs)
    lead: Tensor | None = None
    for gap in gaps:
        lead = F.relu(gap if lead is None else gap + lead)
    return last if lead is None else last + lead


def _windows(x: Tensor, window: MaxWindow) -> Tensor:
    """Pad (N, C, *spatial) so that each size is that of the blocks which the windows read."""
    before = same_padding(x.shape[2:], window.extent, window.scale) if window.extent else [(0, 0)] * len(window.scale)
    sizes = [n + low + high for n, (low, high) in zip(x.shape[2:], before, strict=True)]
    out = [(n + e) // s + 1 for n, e, s in zip(sizes, window.excess, window.scale, strict=True)]
    if any(size < 1 for size in out):
        msg = f"input of {tuple(x.shape[2:])} positions is smaller than the pool's window"
        raise ValueError(msg)
    lows = [low + p for (low, _), p in zip(before, window.padding, strict=True)]
    blocks = zip(x.shape[2:], out, window.kernel, window.scale, lows, strict=True)
    pads = [(low, (o + k - 1) * s - n - low) for n, o, k, s, low in blocks]
    if window.taps:
        _require_real_taps(x.shape[2:], out, lows, window)
    return _padded(x, pads, by_edge=not window.taps)


def _padded(x: Tensor, pads: Sequence[AxisPadding], *, by_edge: bool) -> Tensor:
    """Crop where the high padding is negative, and pad by the edge value or by each channel's smallest one."""
    crop = [(0, min(high, 0)) for _, high in pads]
    grow = [(low, max(high, 0)) for low, high in pads]
    # Of what is read: a window's maximum is never below the smallest value of the whole map, cropped or not.
    least = x if by_edge else x.amin(dim=tuple(range(2, x.dim())), keepdim=True)
    if any(high for _, high in crop):
        x = F.pad(x, flat_padding(crop))
    if not any(low or high for low, high in grow):
        return x
    if by_edge:
        return F.pad(x, flat_padding(grow), mode="replicate")
    for axis, (low, high) in enumerate(grow, start=2):
        shape = list(x.shape)
        parts = [least.expand(*shape[:axis], size, *shape[axis + 1 :]) for size in (low, high)]
        x = torch.cat([parts[0], x, parts[1]], dim=axis)
    return x


def _require_real_taps(spatial: Sequence[int], out: Sequence[int], lows: Sequence[int], window: MaxWindow) -> None:
    """Raise `ValueError` where a window reads padding alone: its maximum is -inf, which no finite value stands for."""
    for n, count, low, s, taps in zip(spatial, out, lows, window.scale, window.taps, strict=True):
        if any(all(not 0 <= i * s - low + tap < n for tap in taps) for i in range(count)):
            msg = f"a window of the pool lies wholly in the padding of an input of {tuple(spatial)} positions"
            raise ValueError(msg)


class SPDMaxPool(nn.Module):
    """Max pooling as space-to-depth and a tournament of depthwise convolutions and ReLUs, which training may change.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Window; a number (two axes) or one per axis.
        stride: Step of the window; default the kernel.
        padding: Positions of padding on either side.
        dilation: Distance between taps.
        ceil_mode: As in `torch.nn.MaxPool2d`.
        same: Pad as TensorFlow does, by the size of each input. `padding` must be 0.
        form: How it is computed; see `SPDConv`.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output with the sizes of the pool.

    Attributes:
        tournament: By axis, (k, C, s, K) weights: k - 1 differences of neighbouring taps, and the last tap. 24 weights
            per channel for a 3×3 window with stride 2. None for an axis with one tap and stride 1. Four axes in any
            dimension: what has five can have no memory format of images.

    Raises:
        ValueError: Padding above half the kernel or beside `same`; an input is smaller than the window; or a dilated
            window reads nothing but padding.
    """

    def __init__(  # noqa: PLR0913 - a pool's arguments
        self,
        channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        ceil_mode: bool = False,
        same: bool = False,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block as the pool it stands for."""
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        dims = len(self.kernel_size)
        self.stride = self.kernel_size if stride is None else per_axis(stride, dims)
        self.padding, self.dilation, self.ceil_mode = per_axis(padding, dims), per_axis(dilation, dims), ceil_mode
        check_pool_padding(self.kernel_size, self.padding, same=same)
        self.in_channels = self.out_channels = channels
        # The padding comes first and so the window starts at its own first tap.
        windows = list(zip(self.kernel_size, self.stride, self.padding, self.dilation, strict=True))
        self.axes = [split_axis(k, s, 0, d) for k, s, _, d in windows]
        self.scale = tuple(axis.scale for axis in self.axes)
        self.kernel = tuple(axis.kernel for axis in self.axes)
        past_edge = same or ceil_mode or any(self.padding)
        self.window = MaxWindow(
            self.scale,
            self.kernel,
            self.padding,
            excess=tuple(split_axis(k, s, p, d, ceil_mode=ceil_mode).excess for k, s, p, d in windows),
            extent=tuple(d * (k - 1) + 1 for k, _, _, d in windows) if same else (),
            taps=tuple(tuple(range(0, d * k, d)) for k, _, _, d in windows)
            if past_edge and any(d != 1 for d in self.dilation)
            else (),
        )
        self.form: Form = form
        self.tournament = nn.ParameterDict(
            {str(i): torch.empty(len(a.taps), channels, a.scale, a.kernel) for i, a in self._laddered()}
        )
        self.reset_parameters()

    def _laddered(self) -> list[tuple[int, Phases]]:
        """Give the axes, by number, that have a ladder."""
        return [(i, axis) for i, axis in enumerate(self.axes) if len(axis.taps) > 1 or axis.scale > 1]

    def reset_parameters(self) -> None:
        """Set every weight to that of the pool; without memory, there is nothing to be set."""
        if any(weight.is_meta for weight in self.tournament.values()):
            return
        with torch.no_grad():
            for name, value in self.pool_weights().items():
                self.get_parameter(name).copy_(value)

    def pool_weights(self) -> dict[str, Tensor]:
        """Give the weights that make this block the pool, by parameter name."""
        return {
            f"tournament.{i}": _rungs(axis).unsqueeze(1).repeat(1, self.in_channels, 1, 1)
            for i, axis in self._laddered()
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        weights = [self.tournament.get(str(i)) for i in range(len(self.axes))]
        return spd_max_pool(x, weights, self.window, self.form)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, same=True" if self.window.extent else text


def _rungs(axis: Phases) -> Tensor:
    """Give the (k, s, K) weights of one channel's ladder along one axis."""
    taps = torch.zeros(len(axis.taps), axis.scale, axis.kernel, device="cpu")
    for row, (tap, phase) in enumerate(axis.taps):
        taps[row, phase, tap] = 1
    taps[:-1] -= taps[1:].clone()
    return taps


def unfolded_rungs(weight: Tensor, axis: int, dims: int) -> list[Tensor]:
    """Give the rungs of (k, C, s, K) weights as those of convolutions: (C, s, …, K, …), K along the axis."""
    return [
        rung.reshape(*rung.shape[:2], *(rung.shape[2] if i == axis else 1 for i in range(dims)))
        for rung in weight.unbind(0)
    ]
