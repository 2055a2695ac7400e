"""SPD-Conv whose strided weight comes with every call: the place of `F.conv2d(x, weight, bias, stride=2)`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks.phases import Phases, per_axis, scatter_taps, split_axis
from spdify.blocks.spd_conv import AxisPadding, Form, aligned_conv, check_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def spd_functional_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    phase_weight: Tensor,
    axes: Sequence[Phases],
    padding: Sequence[AxisPadding],
    groups: int = 1,
    form: Form = "space_to_depth",
) -> Tensor:
    """Scatter the strided weight, add the block's own, convolve; one node in any fx trace."""
    whole = scatter_taps(weight, axes) + phase_weight
    return aligned_conv(x, whole, bias, [axis.scale for axis in axes], padding, groups, form)


class SPDFunctionalConv(nn.Module):
    """Space-to-depth and a convolution with stride 1, for a strided weight that is given with every call.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Of the strided convolution; one entry per spatial axis.
        stride: Of the strided convolution.
        padding: Zero positions on either side.
        dilation: Distance between taps.
        groups: Groups of the convolution.
        form: How it is computed; see `SPDConv`.

    Shape:
        Input (N, C_in, *spatial) and weight (C_out, C_in / groups, *kernel_size); output that of the convolution.

    Attributes:
        phase_weight: (out_channels, in_channels / groups · s₁·s₂…, *K), zero at the start: what training adds to the
            scattered weight.

    Raises:
        ValueError: Arguments do not fit together, or an input is smaller than the window.
    """

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: int | Sequence[int],
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        groups: int = 1,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block; it computes what the strided convolution does."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = tuple(kernel_size)
        dims = len(self.kernel_size)
        windows = zip(*(per_axis(v, dims) for v in (kernel_size, stride, padding, dilation)), strict=True)
        self.axes = [split_axis(k, s, p, d) for k, s, p, d in windows]
        self.scale = tuple(axis.scale for axis in self.axes)
        self.padding = tuple(axis.padding for axis in self.axes)
        self.form: Form = form
        kernel = tuple(axis.kernel for axis in self.axes)
        self.phase_weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups * math.prod(self.scale), *kernel)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to nothing: the given one alone counts."""
        nn.init.zeros_(self.phase_weight)

    def forward(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - as F.conv2d
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        return spd_functional_conv(
            input, weight, bias, self.phase_weight, self.axes, self.padding, self.groups, self.form
        )

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, scale={self.scale}, "
            f"padding={self.padding}, groups={self.groups}"
        )
