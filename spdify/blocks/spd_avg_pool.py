"""Average pooling as SPD → depthwise convolution, for every variant of `torch.nn.AvgPool*d`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from spdify.blocks.phases import check_pool_padding, per_axis, scatter_taps, split_axis
from spdify.blocks.spd_conv import AxisPadding, Form, aligned_conv, with_margin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class PoolWindow(NamedTuple):
    """A pool's window as `torch.nn` takes it, one entry per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    include_pad: bool


def tap_counts(n: int, n_out: int, window: PoolWindow, axis: int) -> list[int]:
    """Give the number of positions along `axis` by which PyTorch divides at each of the `n_out` outputs.

    A window that ceil_mode lets reach past the padding is cut there; without `include_pad`, at the input itself.
    """
    kernel, stride, padding = window.kernel[axis], window.stride[axis], window.padding[axis]
    first, last = (-padding, n + padding) if window.include_pad else (0, n)
    starts = [i * stride - padding for i in range(n_out)]
    return [min(start + kernel, last) - max(start, first) for start in starts]


def divisor_correction(x: Tensor, y: Tensor, window: PoolWindow) -> Tensor | None:
    """Give the factor, broadcastable to `y`, that turns the full window's mean into PyTorch's; None where it is 1."""
    dims = len(window.kernel)
    factor: Tensor | None = None
    for axis, kernel in enumerate(window.kernel):
        n_out = y.shape[axis - dims]
        counts = tap_counts(x.shape[axis - dims], n_out, window, axis)
        if all(count == kernel for count in counts):
            continue
        view = [1] * dims
        view[axis] = n_out
        along = torch.tensor([kernel / count for count in counts], dtype=y.dtype, device=y.device).view(view)
        factor = along if factor is None else factor * along
    return factor


@torch.fx.wrap
def spd_avg_pool(  # noqa: PLR0913 - a convolution's arguments and the window's
    x: Tensor,
    weight: Tensor,
    scale: Sequence[int],
    padding: Sequence[AxisPadding],
    window: PoolWindow | None = None,
    form: Form = "space_to_depth",
    extent: Sequence[int] = (),
) -> Tensor:
    """Sum the window with `weight` and, given the window, mend the divisor at the borders; one node in any fx trace.

    With an `extent`, the zeros of same padding come first and count as input.
    """
    x = with_margin(x, scale, extent, "same")
    y = aligned_conv(x, weight, None, scale, padding, weight.shape[0], form)
    factor = divisor_correction(x, y, window) if window is not None else None
    return y if factor is None else y * factor


class SPDAvgPool(nn.Module):
    """Average pooling as space-to-depth and a depthwise convolution, which training may change.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Window; a number (two axes) or one per axis.
        stride: Step of the window; default the kernel.
        padding: Positions of zero padding on either side.
        ceil_mode: As in `torch.nn.AvgPool2d`.
        count_include_pad: As in `torch.nn.AvgPool2d`.
        divisor_override: As in `torch.nn.AvgPool2d`.
        same: Pad zeros as TensorFlow does, by the size of each input; they count as input. `padding` must be 0.
        form: How it is computed; see `SPDConv`.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output with the sizes of the pool.

    Attributes:
        weight: (channels, s₁·s₂…, *K), 1 / window size (or 1 / divisor_override) at the window's taps at the start.

    Raises:
        ValueError: Padding above half the kernel or beside `same`, or an input is smaller than the window.
    """

    def __init__(  # noqa: PLR0913 - a pool's arguments
        self,
        channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        same: bool = False,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block as the pool it stands for."""
        super().__init__()
        self.in_channels = self.out_channels = channels
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        dims = len(self.kernel_size)
        self.stride = self.kernel_size if stride is None else per_axis(stride, dims)
        self.pads, self.ceil_mode, self.count_include_pad = per_axis(padding, dims), ceil_mode, count_include_pad
        check_pool_padding(self.kernel_size, self.pads, same=same)
        self.extent = self.kernel_size if same else ()
        self.divisor_override = divisor_override
        self.axes = [
            split_axis(k, s, p, 1, ceil_mode=ceil_mode)
            for k, s, p in zip(self.kernel_size, self.stride, self.pads, strict=True)
        ]
        self.scale = tuple(axis.scale for axis in self.axes)
        self.padding = tuple(axis.padding for axis in self.axes)
        self.form: Form = form
        # With a fixed divisor, and where no window can leave the counted area, there is nothing to mend.
        self.window: PoolWindow | None = None
        if divisor_override is None and (ceil_mode or (any(self.pads) and not count_include_pad)):
            self.window = PoolWindow(self.kernel_size, self.stride, self.pads, count_include_pad)
        kernel = tuple(axis.kernel for axis in self.axes)
        self.weight = nn.Parameter(torch.empty(channels, math.prod(self.scale), *kernel))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to that of the pool; without memory, there is nothing to be set."""
        if self.weight.is_meta:
            return
        with torch.no_grad():
            self.weight.copy_(self.pool_weight())

    def pool_weight(self) -> Tensor:
        """Give the weight that makes this block the pool, in float64."""
        divisor = self.divisor_override or math.prod(self.kernel_size)
        taps = torch.full((self.in_channels, 1, *self.kernel_size), 1 / divisor, dtype=torch.float64, device="cpu")
        return scatter_taps(taps, self.axes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        return spd_avg_pool(x, self.weight, self.scale, self.padding, self.window, self.form, self.extent)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, same=True" if self.extent else text
