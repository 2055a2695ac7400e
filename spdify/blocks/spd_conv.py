"""SPD-Conv: space-to-depth, then a convolution without stride (arXiv 2208.03641)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.phases import per_axis, same_padding, space_to_depth, whole_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Form: TypeAlias = Literal["space_to_depth", "strided"]
AxisPadding: TypeAlias = tuple[int, int]

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def flat_padding(padding: Sequence[AxisPadding]) -> list[int]:
    """Give per-axis (low, high) pairs in the order of `torch.nn.functional.pad`: last axis first."""
    return [size for pair in reversed(padding) for size in pair]


def _output_size(x: Tensor, kernel: Sequence[int], scale: Sequence[int], padding: Sequence[AxisPadding]) -> list[int]:
    """Positions per axis that come out of the window."""
    spatial = x.shape[2:]
    out = [
        (n + low + high - k * s) // s + 1 for n, k, s, (low, high) in zip(spatial, kernel, scale, padding, strict=True)
    ]
    if any(size < 1 for size in out):
        msg = f"input of {tuple(spatial)} positions is smaller than the block's window: output would be {tuple(out)}"
        raise ValueError(msg)
    return out


def strided_weight(weight: Tensor, scale: Sequence[int]) -> Tensor:
    """Write an SPD-Conv's weight as that of the equal strided convolution.

    Args:
        weight: (O, I·s₁·s₂…, *K).
        scale: Block size per axis.

    Returns:
        (O, I, K₁·s₁, K₂·s₂, …).
    """
    dims = len(scale)
    kernel = weight.shape[2:]
    channels = weight.shape[1] // math.prod(scale)
    split = weight.reshape(weight.shape[0], channels, *scale, *kernel)
    order = [0, 1] + [axis for i in range(dims) for axis in (2 + dims + i, 2 + i)]
    return split.permute(order).reshape(weight.shape[0], channels, *(k * s for k, s in zip(kernel, scale, strict=True)))


def aligned_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Sequence[int],
    padding: Sequence[AxisPadding],
    groups: int,
    form: Form,
) -> Tensor:
    """Run an SPD-Conv on any input size: see `SPDConv` for the arguments."""
    dims = len(scale)
    if x.dim() == dims + 1:
        return aligned_conv(x.unsqueeze(0), weight, bias, scale, padding, groups, form).squeeze(0)
    conv = CONVOLUTIONS[dims]
    kernel = weight.shape[2:]
    spatial = x.shape[2:]
    out = _output_size(x, kernel, scale, padding)
    if form == "strided":
        pads = [
            (low, s * (o + k - 1) - n - low)
            for n, o, k, s, (low, _) in zip(spatial, out, kernel, scale, padding, strict=True)
        ]
        return conv(
            F.pad(x, flat_padding(pads)), strided_weight(weight, scale), bias, stride=tuple(scale), groups=groups
        )
    remainder = [(0, -n % s) for n, s in zip(spatial, scale, strict=True)]
    if any(high for _, high in remainder):
        x = F.pad(x, flat_padding(remainder))
    x = space_to_depth(x, scale)
    pads = [
        (low // s, o + k - 1 - n - low // s)
        for n, o, k, s, (low, _) in zip(x.shape[2:], out, kernel, scale, padding, strict=True)
    ]
    if all(low == high for low, high in pads):
        return conv(x, weight, bias, padding=tuple(low for low, _ in pads), groups=groups)
    return conv(F.pad(x, flat_padding(pads)), weight, bias, groups=groups)


@torch.fx.wrap
def spd_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Sequence[int],
    padding: Sequence[AxisPadding],
    groups: int = 1,
    form: Form = "space_to_depth",
    margin: Sequence[int] = (),
    padding_mode: str = "zeros",
) -> Tensor:
    """Apply SPD-Conv; the function behind `SPDConv`, one node in any fx trace."""
    x = with_margin(x, scale, margin, padding_mode)
    return aligned_conv(x, weight, bias, scale, padding, groups, form)


def with_margin(x: Tensor, scale: Sequence[int], margin: Sequence[int], padding_mode: str) -> Tensor:
    """Pad an input before everything else; see `SPDConv` for the arguments."""
    if not margin:
        return x
    if padding_mode == "same":
        return F.pad(x, flat_padding(same_padding(x.shape[-len(scale) :], margin, scale)))
    if padding_mode == "ceil":
        return whole_blocks(x, scale, "replicate")
    return F.pad(x, flat_padding([(m, m) for m in margin]), mode=padding_mode)


def check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise `ValueError` unless the groups have equal shares of the channels."""
    if in_channels % groups or out_channels % groups:
        msg = f"cannot split {in_channels} → {out_channels} channels into {groups} groups"
        raise ValueError(msg)


def check_low_padding(padding: Sequence[AxisPadding], scale: Sequence[int]) -> None:
    """Raise `ValueError` unless the low padding is made of whole blocks, the same number of them in both forms."""
    if len(padding) != len(scale) or any(low < 0 or low % s for (low, _), s in zip(padding, scale, strict=True)):
        msg = f"low padding must be a multiple of the scale {tuple(scale)}, got {tuple(padding)}"
        raise ValueError(msg)


def draw_as_convolution(weight: Tensor, bias: Tensor | None) -> None:
    """Draw a weight (out, in, …) and a bias, in place, as `torch.nn.Conv2d` does."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(bias, -bound, bound)


class SPDConv(nn.Module):
    """Space-to-depth, then a convolution with stride 1, in one, two or three dimensions.

    It is the equal of a convolution with kernel K·s, stride s and `padding`, and computes it in either form.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: K, taps of the convolution over blocks; one number or one per axis.
        scale: s, block size; a number (two axes) or one per axis.
        padding: Per axis (low, high) zero positions around the input, in input positions. Low is a multiple of the
            scale; high may be negative (a crop). Default: K // 2 blocks on either side, and sizes that the scale does
            not divide are rounded up.
        groups: Groups of the convolution. Channel-major phases keep each group's channels together.
        bias: Whether to add a learnable bias.
        margin: Positions padded by `padding_mode` on either side before everything else; for `same`, the extent of the
            window, d·(k - 1) + 1 positions per axis; for `ceil`, the scale.
        padding_mode: `reflect`, `replicate`, `circular`, `same` or `ceil` with a margin, `zeros` without. `same` pads
            zeros as TensorFlow does, by the size of each input (`spdify.blocks.phases.same_padding`); `ceil` fills the
            last block up with the edge value.
        form: `space_to_depth` or `strided`: two ways to compute the same numbers.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output (N, C_out, *out) with
        out = floor((n + low + high - K·s) / s) + 1 per axis.

    Attributes:
        weight: (out_channels, in_channels / groups · s₁·s₂…, *K).
        bias: (out_channels,) or None.

    Raises:
        ValueError: Arguments do not fit together, or an input is smaller than the window.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        scale: int | Sequence[int] = 2,
        padding: Sequence[AxisPadding] | None = None,
        *,
        groups: int = 1,
        bias: bool = True,
        margin: Sequence[int] = (),
        padding_mode: str = "zeros",
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        dims = len(self.scale)
        self.kernel_size = per_axis(kernel_size, dims)
        if padding is None:
            padding = [(k // 2 * s, k // 2 * s + s - 1) for k, s in zip(self.kernel_size, self.scale, strict=True)]
        self.padding = tuple((low, high) for low, high in padding)
        check_low_padding(self.padding, self.scale)
        if len(margin) not in {0, dims} or any(margin) != (padding_mode != "zeros"):
            msg = f"a margin has one entry per axis and needs a padding_mode, got {tuple(margin)} and {padding_mode!r}"
            raise ValueError(msg)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.margin, self.padding_mode = tuple(margin), padding_mode
        self.form: Form = form
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups * math.prod(self.scale), *self.kernel_size)
        )
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does."""
        draw_as_convolution(self.weight, self.bias)

    @property
    def stride(self) -> tuple[int, ...]:
        """Input positions per output position and axis, as of the equal strided convolution."""
        return self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        return spd_conv(
            x, self.weight, self.bias, self.scale, self.padding, self.groups, self.form, self.margin, self.padding_mode
        )

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, scale={self.scale}"
        text += f", padding={self.padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.margin:
            text += f", margin={self.margin}, padding_mode={self.padding_mode!r}"
        return text if self.form == "space_to_depth" else f"{text}, form={self.form!r}"
