"""A strided convolution run at every position: what is done about its stride comes from somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks.conv_spd import ConvWindow, window_of
from spdify.blocks.phases import per_axis
from spdify.blocks.spd_conv import CONVOLUTIONS, check_groups, draw_as_convolution, with_margin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def unstrided_conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: ConvWindow, groups: int = 1) -> Tensor:
    """Convolve at every position; output s·i reads what output i of the strided convolution reads.

    Args:
        x: (N, C_in, *spatial) or (C_in, *spatial).
        weight: (C, C_in / groups, *k).
        bias: (C,) or None.
        window: Of the strided convolution.
        groups: Of the strided convolution.

    Returns:
        (N, C, *out): where the strided convolution gives m positions of n, these are at least s·(m - 1) + 1.
    """
    x = with_margin(x, window.stride, window.margin, window.padding_mode)
    conv = CONVOLUTIONS[len(window.stride)]
    return conv(x, weight, bias, padding=window.padding, dilation=window.dilation, groups=groups)


class UnstridedConv(nn.Module):
    """A strided convolution with its stride taken out, padded as before; `reduce` may put something in its place.

    Args:
        in_channels: Channels of the input.
        out_channels: Filters.
        kernel_size: Taps; one number or one per axis.
        stride: Of the strided convolution; a number (two axes) or one per axis.
        padding: Positions of padding on either side.
        dilation: Distance between taps.
        groups: Groups of the convolution.
        bias: Whether the convolution has a learnable bias.
        padding_mode: `zeros`, `reflect`, `replicate`, `circular`; or `same`, zeros by the size of each input and the
            stride, as TensorFlow pads (`spdify.blocks.phases.same_padding`), with a `padding` of 0.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output (N, C_out, *out) with one position for each at which the
        window fits.

    Attributes:
        weight: (out_channels, in_channels / groups, *kernel_size), the strided convolution's own.
        bias: (out_channels,) or None.
    """

    OPAQUE = True
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        self.stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
        dims = len(self.stride)
        self.kernel_size, pads, spread = (per_axis(value, dims) for value in (kernel_size, padding, dilation))
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.window = window_of(self.kernel_size, self.stride, pads, spread, padding_mode)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        draw_as_convolution(self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does."""
        draw_as_convolution(self.weight, self.bias)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output reads one position: then maps may be reduced before, which costs less."""
        return all(k == 1 for k in self.kernel_size) and not any(self.window.padding)

    @property
    def by_size(self) -> bool:
        """Whether it pads by the size of each input."""
        return self.window.padding_mode == "same"

    def reduce(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to a smaller (N, C, *out); nothing is done here."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        if self.is_pointwise:
            return unstrided_conv(self.reduce(x), self.weight, self.bias, self.window, self.groups)
        return self.reduce(unstrided_conv(x, self.weight, self.bias, self.window, self.groups))

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.window.padding}"
        if any(d != 1 for d in self.window.dilation):
            text += f", dilation={self.window.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.window.margin:
            text += f", margin={self.window.margin}, padding_mode={self.window.padding_mode!r}"
        return text
