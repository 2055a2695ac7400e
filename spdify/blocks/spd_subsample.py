"""A subsampling slice as SPD → depthwise convolution that picks the phase of the slice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks.spd_conv import AxisPadding, Form, aligned_conv
from spdify.blocks.spd_pointwise_conv import one_phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def spd_subsample(  # noqa: PLR0913 - a convolution's arguments and the axes
    x: Tensor,
    weight: Tensor,
    scale: Sequence[int],
    padding: Sequence[AxisPadding],
    axes: Sequence[int],
    form: Form = "space_to_depth",
) -> Tensor:
    """Mix the phases along `axes` of each channel, which lie along the axis that is left; one node in any fx trace."""
    (channel,) = (axis for axis in range(1, x.dim()) if axis not in axes)
    order = [0, channel, *axes]
    y = aligned_conv(x.permute(order), weight, None, scale, padding, weight.shape[0], form)
    return y.permute([order.index(axis) for axis in range(x.dim())])


class SPDSubsample(nn.Module):
    """Every s-th row and column, as space-to-depth and a depthwise convolution, which training may change.

    Args:
        channels: Channels of the input and the output.
        scale: Steps of the slice, one per stepped axis.
        starts: First position along each stepped axis, below its step.
        axes: The stepped axes, of a tensor with a batch axis first and one axis of channels besides these:
            (2, 3) for channels first, (1, 2) for channels last.
        form: How it is computed; see `SPDConv`.

    Shape:
        Any layout with the batch first; the output has ceil((n - start) / s) positions per stepped axis.

    Attributes:
        weight: (channels, s₁·s₂…, 1, …), one-hot at the start: the phase that the slice takes.

    Raises:
        ValueError: A start beyond the first block.
    """

    def __init__(
        self,
        channels: int,
        scale: Sequence[int],
        starts: Sequence[int],
        axes: Sequence[int],
        *,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block as the slice it stands for."""
        super().__init__()
        if any(not 0 <= start < s for start, s in zip(starts, scale, strict=True)):
            msg = f"a slice starts inside its first block: expected starts below {tuple(scale)}, got {tuple(starts)}"
            raise ValueError(msg)
        self.in_channels = self.out_channels = channels
        self.scale, self.starts, self.axes = tuple(scale), tuple(starts), tuple(axes)
        self.padding = tuple((0, s - 1 - start) for start, s in zip(starts, scale, strict=True))
        self.form: Form = form
        self.weight = nn.Parameter(torch.empty(channels, math.prod(self.scale), *(1 for _ in self.scale)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Pick the slice's phase."""
        with torch.no_grad():
            self.weight.copy_(one_phase(self.weight, self.scale, self.starts))

    def forward(self, x: Tensor) -> Tensor:
        """Take the slice."""
        return spd_subsample(x, self.weight, self.scale, self.padding, self.axes, self.form)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{self.in_channels}, scale={self.scale}, starts={self.starts}, axes={self.axes}"
