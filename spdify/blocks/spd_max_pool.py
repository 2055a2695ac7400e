"""Max pooling as SPD → a tournament of grouped convolutions and PReLUs.

max(a, b) = (a + b) / 2 + |a - b| / 2. A grouped convolution gives the half sum and the half difference of each pair of
taps; a PReLU with slope 1 passes the sum, with slope -1 takes the difference's absolute value; the next convolution
adds the two and pairs the winners again. After ceil(log₂ taps) rounds one value per channel is left: the maximum.

Padding with the edge value plays the part of -inf: with dilation 1 and padding at most half the kernel, the edge lies
inside every window that reaches past it. A dilated window may step over the edge; there the smallest value of each
channel takes its place, which no maximum over at least one real tap can lose to. Limits: an infinite input gives NaN,
and the rounding is that of the larger operand (float32 max(-1e8, 1) gives 0).
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.phases import Phases, check_pool_padding, per_axis, same_padding, space_to_depth, split_axis
from spdify.blocks.spd_conv import AxisPadding, flat_padding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

CONV_TYPES: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


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
def window_phases(x: Tensor, window: MaxWindow) -> Tensor:
    """Pad with what no maximum picks, then move phases to channels, so that every window is `kernel` blocks wide.

    Args:
        x: (N, C, *spatial) or (C, *spatial), which becomes a batch of one.
        window: How.

    Returns:
        (N, C·s₁·s₂…, *(out + kernel - 1)).
    """
    if x.dim() == len(window.scale) + 1:
        x = x.unsqueeze(0)
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
    return space_to_depth(_padded(x, pads, by_edge=not window.taps), window.scale)


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


@torch.fx.wrap
def batched_like(y: Tensor, x: Tensor) -> Tensor:
    """Take the batch of one from `y` again where `x` had none: PReLU needs a batch to find the channels."""
    return y if x.dim() == y.dim() else y.squeeze(0)


class SPDMaxPool(nn.Module):
    """Max pooling as space-to-depth and a tournament of convolutions and PReLUs, which training may change.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Window; a number (two axes) or one per axis.
        stride: Step of the window; default the kernel.
        padding: Positions of padding on either side.
        dilation: Distance between taps.
        ceil_mode: As in `torch.nn.MaxPool2d`.
        same: Pad as TensorFlow does, by the size of each input. `padding` must be 0.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output with the sizes of the pool.

    Attributes:
        tournament: Grouped convolutions (no bias) and PReLUs in turn; 231 weights per channel for a 3×3 window with
            stride 2.

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
    ) -> None:
        """Make the block as the pool it stands for."""
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        dims = len(self.kernel_size)
        self.stride = self.kernel_size if stride is None else per_axis(stride, dims)
        self.padding, dilations = per_axis(padding, dims), per_axis(dilation, dims)
        check_pool_padding(self.kernel_size, self.padding, same=same)
        self.in_channels = self.out_channels = channels
        # The padding comes first and so the window starts at its own first tap.
        windows = list(zip(self.kernel_size, self.stride, self.padding, dilations, strict=True))
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
            if past_edge and any(d != 1 for d in dilations)
            else (),
        )
        self.rounds = tournament_rounds(self.axes)
        conv = CONV_TYPES[dims]
        layers: list[nn.Module] = []
        for i, (weight, slopes) in enumerate(self.rounds):
            rows, columns, *taps = weight.shape
            layers.append(conv(columns * channels, rows * channels, tuple(taps), groups=channels, bias=False))
            if i < len(self.rounds) - 1:
                layers.append(nn.PReLU(len(slopes) * channels))
        self.tournament = nn.Sequential(*layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every weight to that of the pool."""
        with torch.no_grad():
            for name, value in self.pool_weights().items():
                self.get_parameter(name).copy_(value)

    def pool_weights(self) -> dict[str, Tensor]:
        """Give the weights that make this block the pool, by parameter name."""
        channels = self.in_channels
        state = {}
        for i, (weight, slopes) in enumerate(self.rounds):
            state[f"tournament.{2 * i}.weight"] = weight.repeat(channels, *[1] * (weight.dim() - 1))
            if i < len(self.rounds) - 1:
                state[f"tournament.{2 * i + 1}.weight"] = slopes.repeat(channels)
        return state

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return batched_like(self.tournament(window_phases(x, self.window)), x)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, same=True" if self.window.extent else text


def tournament_rounds(axes: Sequence[Phases]) -> list[tuple[Tensor, Tensor]]:
    """Give the rounds for one channel: (rows, columns, *K) weights, and the slopes of the PReLU that follows.

    The first round reads the phases; the last one has a single row and its slopes are unused.
    """
    players = _window_taps(axes)
    rounds = []
    while len(players) > 1:
        rows: list[Tensor] = []
        slopes: list[float] = []
        winners: list[tuple[int, ...]] = []
        for first, second in zip(players[::2], players[1::2], strict=False):
            rows += [(first + second) / 2, (first - second) / 2]
            slopes += [1.0, -1.0]
            winners.append((len(rows) - 2, len(rows) - 1))
        if len(players) % 2:
            rows.append(players[-1])
            slopes.append(1.0)
            winners.append((len(rows) - 1,))
        rounds.append((torch.stack(rows), torch.tensor(slopes, device="cpu")))
        players = [_sum_of(winner, len(rows), len(axes)) for winner in winners]
    rounds.append((players[0].unsqueeze(0), torch.ones(1, device="cpu")))
    return rounds


def _window_taps(axes: Sequence[Phases]) -> list[Tensor]:
    """Give, for each tap of the pool's window, the (phases, *K) weight that reads it alone."""
    scales = [axis.scale for axis in axes]
    taps = []
    for window in product(*(axis.taps for axis in axes)):
        weight = torch.zeros(*scales, *(axis.kernel for axis in axes), device="cpu")
        weight[tuple(r for _, r in window) + tuple(q for q, _ in window)] = 1
        taps.append(weight.reshape(math.prod(scales), *(axis.kernel for axis in axes)))
    return taps


def _sum_of(rows: tuple[int, ...], count: int, dims: int) -> Tensor:
    """Give the (count, 1, …) weight that adds these rows of the round before."""
    weight = torch.zeros(count, *[1] * dims, device="cpu")
    weight[list(rows)] = 1
    return weight
