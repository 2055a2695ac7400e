"""A convolution at every position, then space-to-depth: the order of the released code of SPD-Conv.

The text of arXiv 2208.03641 rearranges first. The code that was released with it runs the convolution with stride 1 on
the whole map, rearranges what comes out, and lets the next layer read s² times the channels. Output s·i of the
convolution with stride 1 reads what output i of the strided one reads: phase 0 of each channel is the strided
convolution, and the other phases are what it leaves out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.phases import per_axis, space_to_depth, whole_blocks
from spdify.blocks.spd_conv import CONVOLUTIONS, check_groups, draw_as_convolution, with_margin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class ConvWindow(NamedTuple):
    """A convolution's window, one entry per spatial axis; a tuple, so that fx can take it for an argument.

    Attributes:
        stride: Of the strided convolution: block size of space-to-depth, and what same padding depends on.
        padding: Positions of zero padding on either side, part of the convolution.
        dilation: Distance between taps.
        margin: What `SPDConv` takes for a margin: padding by `padding_mode`, before everything else.
        padding_mode: Of the margin.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    margin: tuple[int, ...] = ()
    padding_mode: str = "zeros"


@torch.fx.wrap
def conv_spd(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reduction_weight: Tensor | None,
    window: ConvWindow,
    groups: int = 1,
) -> Tensor:
    """Convolve at every position, then move phases to channels; one node in any fx trace.

    Args:
        x: (N, C_in, *spatial) or (C_in, *spatial).
        weight: (C, C_in / groups, *k).
        bias: (C,) or None.
        reduction_weight: (C, C / groups · s₁·s₂…, 1, …), or None to give all phases.
        window: Of the strided convolution.
        groups: Of the strided convolution.

    Returns:
        (N, C·s₁·s₂…, *out), or (N, C, *out) with a `reduction_weight`.
    """
    dims = len(window.stride)
    batched = x.dim() == dims + 2
    x = with_margin(x if batched else x.unsqueeze(0), window.stride, window.margin, window.padding_mode)
    conv = CONVOLUTIONS[dims]
    y = conv(x, weight, bias, padding=window.padding, dilation=window.dilation, groups=groups)
    y = space_to_depth(whole_blocks(y, window.stride, "zeros"), window.stride)
    if reduction_weight is not None:
        y = conv(y, reduction_weight, groups=groups)
    return y if batched else y.squeeze(0)


class ConvSPD(nn.Module):
    """A strided convolution run with stride 1, then space-to-depth: s₁·s₂… times the channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Filters of the convolution.
        kernel_size: Taps; one number or one per axis.
        stride: Of the strided convolution; a number (two axes) or one per axis.
        padding: Positions of padding on either side.
        dilation: Distance between taps.
        groups: Groups of the convolution, and of the reduction.
        bias: Whether the convolution has a learnable bias.
        padding_mode: `zeros`, `reflect`, `replicate`, `circular`; or `same`, zeros by the size of each input and the
            stride, as TensorFlow pads (`spdify.blocks.phases.same_padding`), with a `padding` of 0.
        reduce: Let a convolution of one tap, without bias, bring the channels back to `out_channels`.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output with the sizes of the strided convolution. Channel
        c·s₁·s₂… + r holds phase r of channel c (`spdify.blocks.space_to_depth`), phase 0 what the strided convolution
        gives; blocks that reach past the end are filled up with zeros. With `reduce`, out_channels channels.

    Attributes:
        weight: (out_channels, in_channels / groups, *kernel_size), the strided convolution's own.
        bias: (out_channels,) or None.
        reduction_weight: (out_channels, out_channels / groups · s₁·s₂…, 1, …), one-hot at phase 0 of each channel at
            the start, which makes the block the strided convolution; None without `reduce`.

    Raises:
        ValueError: Arguments do not fit together.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    reduction_weight: nn.Parameter | None

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
        shape = (out_channels, out_channels // groups * math.prod(self.stride), *[1] * dims)
        self.register_parameter("reduction_weight", nn.Parameter(torch.empty(shape)) if reduce else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does; the reduction takes phase 0 of each channel."""
        draw_as_convolution(self.weight, self.bias)
        if self.reduction_weight is not None:
            with torch.no_grad():
                self.reduction_weight.copy_(first_phase(self.out_channels, self.groups, self.stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out·s₁·s₂…, *out), or to (N, C_out, *out)."""
        return conv_spd(x, self.weight, self.bias, self.reduction_weight, self.window, self.groups)

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
        return text if self.reduction_weight is None else f"{text}, reduce=True"


def window_of(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], mode: str
) -> ConvWindow:
    """Part the padding into that of the convolution, zeros, and that which comes before."""
    none = (0,) * len(stride)
    if mode == "same":
        if any(padding):
            raise ValueError(f"same padding leaves no room for another, got {padding}")
        extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
        return ConvWindow(stride, none, dilation, extent, mode)
    if mode == "zeros" or not any(padding):
        return ConvWindow(stride, padding, dilation)
    return ConvWindow(stride, none, dilation, padding, mode)


def first_phase(channels: int, groups: int, scale: Sequence[int]) -> Tensor:
    """Give the (channels, channels / groups · s₁·s₂…, 1, …) weight that takes phase 0 of each channel, on the CPU."""
    own = torch.eye(channels // groups, device="cpu").repeat(groups, 1)
    spread = F.pad(own.unsqueeze(-1), (0, math.prod(scale) - 1)).flatten(1)
    return spread.reshape(*spread.shape, *[1] * len(scale))
