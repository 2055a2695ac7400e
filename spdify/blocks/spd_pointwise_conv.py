"""A strided 1×1 convolution as SPD → convolution over the phases of one channel, or of a few → 1×1 convolution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks.phases import per_axis
from spdify.blocks.spd_conv import (
    CONVOLUTIONS,
    AxisPadding,
    Form,
    aligned_conv,
    check_groups,
    check_low_padding,
    draw_as_convolution,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def spd_pointwise_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    phase_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Sequence[int],
    padding: Sequence[AxisPadding],
    groups: int = 1,
    form: Form = "space_to_depth",
) -> Tensor:
    """Mix the phases of each channel, or of a few, then all channels; one node in any fx trace."""
    mixed = phase_weight.shape[1] // math.prod(scale)
    x = aligned_conv(x, phase_weight, None, scale, padding, phase_weight.shape[0] // mixed, form)
    return CONVOLUTIONS[len(scale)](x, weight, bias, groups=groups)


class SPDPointwiseConv(nn.Module):
    """Space-to-depth, a convolution over the phases of each channel, a 1×1 convolution over the channels.

    With phase 0 picked it is a strided 1×1 convolution, for s₁·s₂… weights per input channel more instead of s₁·s₂…
    times as many; training may then use the positions that the strided one never reads. Where G channels are mixed at
    a time, the first convolution is grouped: G·s₁·s₂… weights per channel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        scale: Block size; a number (two axes) or one per spatial axis.
        phase: Phase that the first convolution picks of each channel at the start; a number or one per axis.
        padding: Per axis (low, high) zero positions around the input, in input positions, low a multiple of the scale;
            default none, with sizes that the scale does not divide rounded up.
        groups: Groups of the 1×1 convolution.
        bias: Whether the 1×1 convolution has a bias.
        mixed: G, channels whose phases are mixed with one another; it divides their number. 1: a depthwise convolution.
        form: How the first convolution is computed; see `SPDConv`.

    Shape:
        Input (N, C_in, *spatial), output (N, C_out, *out), sizes as in `SPDConv` with K = 1.

    Attributes:
        weight: (out_channels, in_channels / groups, 1, …), the strided convolution's own.
        bias: (out_channels,) or None.
        phase_weight: (in_channels, G·s₁·s₂…, 1, …), one-hot at the start.

    Raises:
        ValueError: Arguments do not fit together, or an input is smaller than the window.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    phase_weight: nn.Parameter

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        scale: int | Sequence[int] = 2,
        phase: int | Sequence[int] = 0,
        padding: Sequence[AxisPadding] | None = None,
        *,
        groups: int = 1,
        bias: bool = True,
        mixed: int = 1,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block; the 1×1 weights are drawn as `torch.nn.Conv2d` draws them."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        if mixed < 1 or in_channels % mixed:
            msg = f"cannot mix {mixed} channels at a time: they do not divide {in_channels}"
            raise ValueError(msg)
        self.in_channels, self.out_channels, self.groups, self.mixed = in_channels, out_channels, groups, mixed
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        self.phase = per_axis(phase, len(self.scale))
        if any(not 0 <= r < s for r, s in zip(self.phase, self.scale, strict=True)):
            msg = f"a phase lies between 0 and the scale {self.scale}, got {self.phase}"
            raise ValueError(msg)
        if padding is None:
            padding = [(0, s - 1) for s in self.scale]
        self.padding = tuple((low, high) for low, high in padding)
        check_low_padding(self.padding, self.scale)
        self.form: Form = form
        ones = (1,) * len(self.scale)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *ones))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.phase_weight = nn.Parameter(torch.empty(in_channels, mixed * math.prod(self.scale), *ones))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the 1×1 convolution as `torch.nn.Conv2d` does; pick `phase` of every channel."""
        draw_as_convolution(self.weight, self.bias)
        with torch.no_grad():
            self.phase_weight.copy_(one_phase(self.phase_weight, self.scale, self.phase))

    @property
    def stride(self) -> tuple[int, ...]:
        """Input positions per output position and axis, as of the equal strided convolution."""
        return self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        return spd_pointwise_conv(
            x, self.phase_weight, self.weight, self.bias, self.scale, self.padding, self.groups, self.form
        )

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, {self.out_channels}, scale={self.scale}, padding={self.padding}"
        text += f", groups={self.groups}, bias={self.bias is not None}"
        return text if self.mixed == 1 else f"{text}, mixed={self.mixed}"


def one_phase(like: Tensor, scale: Sequence[int], phase: Sequence[int]) -> Tensor:
    """Give a phase weight that passes one phase of each channel and stops the others.

    Args:
        like: (C, G·s₁·s₂…, 1, …), a weight in its shape, dtype and place; G channels are mixed at a time.
        scale: Block size per axis.
        phase: The phase, one number per axis.
    """
    index = 0
    for s, r in zip(scale, phase, strict=True):
        index = index * s + r
    block = math.prod(scale)
    channels = torch.arange(like.shape[0], device=like.device)
    weight = torch.zeros_like(like)
    weight[channels, channels % (like.shape[1] // block) * block + index] = 1
    return weight
