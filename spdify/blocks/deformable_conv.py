"""Convolutions that read where they choose to: each tap at an offset of its own, weighed by a mask of its own.

The sampling is torchvision's `deform_conv2d`. Offsets and masks come from two ordinary convolutions over the same
window, which start at zero: every tap then reads its own position with weight 2σ(0) = 1, so the block starts as the
convolution whose weight it has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from spdify.blocks.spd_conv import check_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

IMAGE = 3  # axes of one map, without a batch
WHOLE = 2.0  # what a sigmoid at zero is to be multiplied by
NARROW = (torch.float16, torch.bfloat16)  # too coarse for positions


class ZeroConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` that starts at zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class DeformableConv2d(nn.Module):
    """Deformable convolution (arXiv 1703.06211; with masks arXiv 1811.11168), starting as an ordinary one.

    y(p) = Σ_k w_k · x(p + p_k + Δ_k) · 2σ(m_k), read by bilinear interpolation, zero outside. Offsets Δ and masks m are
    convolutions of x with the same window, in full groups, zero at the start. Masks lie between 0 and 2, where the
    original's are at most 1.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: Taps, one entry per axis.
        stride: One entry per axis.
        padding: Zero positions on either side, one entry per axis.
        dilation: Distance between taps, one entry per axis.
        groups: Groups of the convolution.
        bias: Whether there is one.
        offset_groups: Parts of the input's channels that are read at offsets of their own.
        modulated: Whether there are masks (version 2).

    Shape:
        Input (N, C_in, H, W) or (C_in, H, W); output that of the convolution.

    Attributes:
        weight: (out_channels, in_channels / groups, *kernel_size).
        offset: Convolution that gives (N, 2 · offset_groups · taps, H_out, W_out): dy, dx of each tap.
        mask: Convolution that gives (N, offset_groups · taps, H_out, W_out); None where not `modulated`.

    Raises:
        ValueError: Arguments do not fit together.
    """

    OPAQUE: ClassVar[bool] = True  # its own strided convolutions are no sites

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        *,
        groups: int = 1,
        bias: bool = True,
        offset_groups: int = 1,
        modulated: bool = True,
    ) -> None:
        """Make the block: weight and bias as `torch.nn.Conv2d` draws them, no offsets."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        check_groups(in_channels, in_channels, offset_groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = tuple(kernel_size), tuple(stride)
        self.padding, self.dilation = tuple(padding), tuple(dilation)
        self.offset_groups, self.modulated = offset_groups, modulated
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        count = offset_groups * math.prod(self.kernel_size)
        self.offset = self._window(2 * count)
        self.mask = self._window(count) if modulated else None
        self.reset_parameters()

    def _window(self, channels: int) -> ZeroConv2d:
        """Make a convolution over the block's own window."""
        window: Any = (self.kernel_size, self.stride, self.padding, self.dilation)
        return ZeroConv2d(self.in_channels, channels, *window)

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does; offsets and masks start at zero."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(max(self.weight[0].numel(), 1))
            nn.init.uniform_(self.bias, -bound, bound)
        for layer in filter(None, (self.offset, self.mask)):
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H_out, W_out)."""
        mask = None if self.mask is None else WHOLE * torch.sigmoid(self.mask(x))
        return deformed(x, self.weight, self.bias, self.offset(x), mask, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, "
            f"offset_groups={self.offset_groups}, modulated={self.modulated}"
        )


@torch.fx.wrap
def deformed(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Run torchvision's `deform_conv2d`; in float32 where the maps are narrower, and on maps without a batch too.

    Args:
        x: (N, C_in, H, W) or (C_in, H, W).
        weight: (C_out, C_in / groups, *taps).
        bias: (C_out,) or None.
        offset: (N, 2 · offset groups · taps, H_out, W_out), or without N: dy, dx of each tap in positions.
        mask: (N, offset groups · taps, H_out, W_out), or without N; None for 1 everywhere.
        stride: One entry per axis.
        padding: One entry per axis.
        dilation: One entry per axis.

    Returns:
        (N, C_out, H_out, W_out), or without N, in the dtype of the offsets: what a convolution gives here.
    """
    from torchvision.ops import deform_conv2d  # noqa: PLC0415 - torchvision takes seconds to import

    if x.dim() == IMAGE:
        masks = None if mask is None else mask[None]
        return deformed(x[None], weight, bias, offset[None], masks, stride, padding, dilation)[0]
    if x.shape[0] == 0:  # of which the operator makes an error
        return offset.new_empty(0, weight.shape[0], *offset.shape[2:])
    given = offset.dtype
    dtype = torch.float32 if given in NARROW else given
    x, weight, offset = x.to(dtype), weight.to(dtype), offset.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    mask = None if mask is None else mask.to(dtype)
    y: Tensor = deform_conv2d(
        x, offset, weight, bias, stride=tuple(stride), padding=tuple(padding), dilation=tuple(dilation), mask=mask
    )
    return y.to(given)
