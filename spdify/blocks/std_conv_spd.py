"""A convolution with weight standardisation at every position, then space-to-depth (arXiv 1903.10520, 2208.03641)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spdify.blocks.conv_spd import ConvSPD, ConvWindow, conv_spd
from spdify.blocks.spd_std_conv import EPS, Standardised, standardised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def std_conv_spd(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    reduction_weight: Tensor | None,
    window: ConvWindow,
    gain_scale: float = 1.0,
    eps: float = EPS,
    groups: int = 1,
) -> Tensor:
    """Standardise, convolve at every position, move phases to channels; one node in any fx trace."""
    return conv_spd(x, standardised(weight, gain, gain_scale, eps), bias, reduction_weight, window, groups)


class StdConvSPD(Standardised, ConvSPD):
    """`ConvSPD` whose weight is standardised at every run, as that of the strided convolution it stands for.

    The weight keeps its layout, so nothing needs to be kept apart as in `SPDStdConv`.

    Args:
        in_channels: Channels of the input.
        out_channels: Filters of the convolution.
        kernel_size: Taps; one number or one per axis.
        stride: Of the strided convolution; a number (two axes) or one per axis.
        padding: Positions of padding on either side.
        dilation: Distance between taps.
        groups: Groups of the convolution, and of the reduction.
        bias: Whether the convolution has a learnable bias.
        padding_mode: As in `ConvSPD`.
        reduce: As in `ConvSPD`.
        gain_scale: Constant beside a learnable gain per filter; None for no gain.
        eps: Added to each filter's variance.

    Shape:
        As in `ConvSPD`.

    Attributes:
        gain: (out_channels, 1, …) or None; the others as in `ConvSPD`.

    Raises:
        ValueError: Arguments do not fit together.
    """

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
        reduce: bool = False,
        gain_scale: float | None = None,
        eps: float = EPS,
    ) -> None:
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them, and a gain of 1."""
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups=groups, bias=bias,
            padding_mode=padding_mode, reduce=reduce,
        )  # fmt: skip
        self.add_gain(gain_scale, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out·s₁·s₂…, *out), or to (N, C_out, *out)."""
        return std_conv_spd(
            x, self.weight, self.bias, self.gain, self.reduction_weight, self.window, self.gain_scale or 1.0, self.eps,
            self.groups,
        )  # fmt: skip
