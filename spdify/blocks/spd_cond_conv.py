"""A conditionally parameterised convolution (arXiv 1904.04971) as SPD → convolution.

Each sample has a weight of its own, Σₑ r[e]·Wₑ with its routing weights r. Scattering taps to phases is linear, so the
experts are scattered once, in the weight map, and mixed afterwards: Σₑ r[e]·scatter(Wₑ) = scatter(Σₑ r[e]·Wₑ).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks.phases import per_axis
from spdify.blocks.spd_conv import AxisPadding, Form, check_groups, check_low_padding, spd_conv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def spd_cond_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    routing_weights: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    scale: Sequence[int],
    padding: Sequence[AxisPadding],
    groups: int = 1,
    form: Form = "space_to_depth",
    extent: Sequence[int] = (),
) -> Tensor:
    """Mix the experts for each sample and convolve the samples as groups; one node in any fx trace.

    Args:
        x: (N, C_in, *spatial).
        routing_weights: (N, experts).
        weight: (experts, numbers of one expert).
        bias: (experts, C_out) or None.
        shape: Of one expert's weight: (C_out, C_in / groups · s₁·s₂…, *K).
        scale: Block size per axis.
        padding: As in `SPDConv`.
        groups: Groups of one sample's convolution.
        form: As in `SPDConv`.
        extent: With same padding, the window's extent per axis; else empty.
    """
    batch = x.shape[0]
    mixed = torch.matmul(routing_weights, weight).reshape(batch * shape[0], *shape[1:])
    offset = torch.matmul(routing_weights, bias).reshape(-1) if bias is not None else None
    side_by_side = x.reshape(1, batch * x.shape[1], *x.shape[2:])
    mode = "same" if extent else "zeros"
    y = spd_conv(side_by_side, mixed, offset, scale, padding, groups * batch, form, extent, mode)
    return y.reshape(batch, shape[0], *y.shape[2:])


class SPDCondConv(nn.Module):
    """Space-to-depth, then a convolution whose weight is mixed from experts for each sample.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: K, taps of the convolution over blocks; one number or one per axis.
        scale: Block size; a number (two axes) or one per axis.
        padding: As in `SPDConv`; default none, with sizes that the scale does not divide rounded up.
        num_experts: Weights to mix.
        groups: Groups of one sample's convolution.
        bias: Whether each expert has a bias.
        extent: With same padding (TensorFlow's, by the size of each input), positions from the strided window's first
            tap to its last, per axis; else empty.
        form: How it is computed; see `SPDConv`.

    Shape:
        Input (N, C_in, *spatial) and routing weights (N, num_experts), output (N, C_out, *out).

    Attributes:
        weight: (num_experts, out_channels · in_channels / groups · s₁·s₂… · K₁·K₂…).
        bias: (num_experts, out_channels) or None.

    Raises:
        ValueError: Arguments do not fit together, or an input is smaller than the window.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 2,
        scale: int | Sequence[int] = 2,
        padding: Sequence[AxisPadding] | None = None,
        *,
        num_experts: int = 4,
        groups: int = 1,
        bias: bool = False,
        extent: Sequence[int] = (),
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block with every expert drawn as `torch.nn.Conv2d` draws its weights."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        self.kernel_size = per_axis(kernel_size, len(self.scale))
        if padding is None:
            padding = [(0, (k - 1) * s + s - 1) for k, s in zip(self.kernel_size, self.scale, strict=True)]
        self.padding = tuple((low, high) for low, high in padding)
        check_low_padding(self.padding, self.scale)
        if len(extent) not in {0, len(self.scale)}:
            raise ValueError(f"an extent has one entry per axis, got {tuple(extent)}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.num_experts, self.extent = num_experts, tuple(extent)
        self.form: Form = form
        self.weight_shape = (out_channels, in_channels // groups * math.prod(self.scale), *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(num_experts, math.prod(self.weight_shape)))
        self.register_parameter("bias", nn.Parameter(torch.empty(num_experts, out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw each expert as `torch.nn.Conv2d` does."""
        bound = 1 / math.sqrt(math.prod(self.weight_shape[1:]))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def stride(self) -> tuple[int, ...]:
        """Input positions per output position and axis, as of the equal strided convolution."""
        return self.scale

    def forward(self, x: Tensor, routing_weights: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) and (N, num_experts) to (N, C_out, *out)."""
        return spd_cond_conv(
            x, routing_weights, self.weight, self.bias, self.weight_shape, self.scale, self.padding, self.groups,
            self.form, self.extent,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, scale={self.scale}, "
            f"padding={self.padding}, num_experts={self.num_experts}, groups={self.groups}, "
            f"bias={self.bias is not None}"
        )
