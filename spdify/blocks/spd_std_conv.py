"""A convolution with weight standardisation as SPD → convolution (arXiv 1903.10520, scaled: 2101.08692).

Standardisation gives each filter mean 0 and variance 1 over its I·k₁·k₂… entries, so it must see the weight in its old
layout: zeros scattered between the taps would change both. The effective weight is scatter(standardise(W)) + P with a
new P, zero at the start: the same function, and the same gradient for W, while P learns what the zero taps could.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.phases import Phases, per_axis, scatter_taps, split_axis
from spdify.blocks.spd_conv import Form, check_groups, draw_as_convolution, spd_conv
from spdify.blocks.spd_pointwise_conv import SPDPointwiseConv, spd_pointwise_conv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

EPS = 1e-6  # timm's default


def standardised(weight: Tensor, gain: Tensor | None, scale: float, eps: float) -> Tensor:
    """Give (W - mean) / √(variance + eps) per filter, times gain · scale where there is a gain.

    By a batch norm over one sample, as `timm.layers.StdConv2d` and `ScaledStdConv2d` do it: the same rounding.

    Args:
        weight: (O, I, *k).
        gain: (O, 1, …) or None.
        scale: Constant factor beside the gain.
        eps: Added to the variance.
    """
    factor = (gain * scale).view(-1) if gain is not None else None
    flat = weight.reshape(1, weight.shape[0], -1)
    return F.batch_norm(flat, None, None, weight=factor, training=True, momentum=0.0, eps=eps).reshape_as(weight)


@torch.fx.wrap
def spd_std_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    phase_weight: Tensor,
    axes: Sequence[Phases],
    gain_scale: float = 1.0,
    eps: float = EPS,
    groups: int = 1,
    form: Form = "space_to_depth",
    extent: Sequence[int] = (),
) -> Tensor:
    """Standardise, scatter, add what was learned since, convolve; one node in any fx trace."""
    effective = scatter_taps(standardised(weight, gain, gain_scale, eps), axes) + phase_weight
    scale, padding = [axis.scale for axis in axes], [axis.padding for axis in axes]
    return spd_conv(x, effective, bias, scale, padding, groups, form, extent, "same" if extent else "zeros")


@torch.fx.wrap
def spd_std_pointwise_conv(  # noqa: PLR0913 - a convolution's arguments
    x: Tensor,
    phase_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    scale: Sequence[int],
    padding: Sequence[tuple[int, int]],
    gain_scale: float = 1.0,
    eps: float = EPS,
    groups: int = 1,
    form: Form = "space_to_depth",
) -> Tensor:
    """Mix the phases of each channel, or of a few, then all by the standardised weight; one node in any fx trace."""
    mixing = standardised(weight, gain, gain_scale, eps)
    return spd_pointwise_conv(x, phase_weight, mixing, bias, scale, padding, groups, form)


class SPDStdConv(nn.Module):
    """A strided convolution with weight standardisation, as space-to-depth and a convolution with stride 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps of the strided convolution; one number or one per axis.
        stride: Its stride; a number (two axes) or one per axis.
        padding: Its positions of zero padding on either side.
        dilation: Its distance between taps.
        groups: Groups of the convolution.
        bias: Whether to add a learnable bias.
        gain_scale: Constant beside a learnable gain per filter; None for no gain.
        eps: Added to each filter's variance.
        odd: Embed the window over phases into an odd one, as `spdify.blocks.phases.split_axis` does.
        same: Pad zeros as TensorFlow does, by the size of each input. `padding` must be 0.
        form: How it is computed; see `SPDConv`.

    Shape:
        Input (N, C_in, *spatial) or (C_in, *spatial), output with the sizes of the strided convolution.

    Attributes:
        weight: (out_channels, in_channels / groups, *kernel_size), the strided convolution's own.
        bias: (out_channels,) or None.
        gain: (out_channels, 1, …) or None.
        phase_weight: (out_channels, in_channels / groups · s₁·s₂…, *K), zero at the start.

    Raises:
        ValueError: Arguments do not fit together, or an input is smaller than the window.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    gain: nn.Parameter | None
    phase_weight: nn.Parameter

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        groups: int = 1,
        bias: bool = True,
        gain_scale: float | None = None,
        eps: float = EPS,
        odd: bool = False,
        same: bool = False,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block with weights drawn as `torch.nn.Conv2d` draws them."""
        super().__init__()
        check_groups(in_channels, out_channels, groups)
        self.stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
        dims = len(self.stride)
        kernel, pads, spread = (per_axis(value, dims) for value in (kernel_size, padding, dilation))
        if same and any(pads):
            raise ValueError(f"same padding leaves no room for another, got {pads}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.gain_scale, self.eps = gain_scale, eps
        self.axes = [
            split_axis(k, s, p, d, odd=odd) for k, s, p, d in zip(kernel, self.stride, pads, spread, strict=True)
        ]
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, spread, strict=True)) if same else ()
        self.form: Form = form
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        has_gain = gain_scale is not None
        self.register_parameter(
            "gain", nn.Parameter(torch.empty(out_channels, *[1] * (dims + 1))) if has_gain else None
        )
        phases = in_channels // groups * math.prod(self.stride)
        self.phase_weight = nn.Parameter(torch.empty(out_channels, phases, *(axis.kernel for axis in self.axes)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as `torch.nn.Conv2d` does; gain 1, and nothing beside the standardised weight."""
        draw_as_convolution(self.weight, self.bias)
        nn.init.zeros_(self.phase_weight)
        if self.gain is not None:
            nn.init.ones_(self.gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        return spd_std_conv(
            x, self.weight, self.bias, self.gain, self.phase_weight, self.axes, self.gain_scale or 1.0, self.eps,
            self.groups, self.form, self.extent,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={tuple(self.weight.shape[2:])}"
        text += f", stride={self.stride}, groups={self.groups}, bias={self.bias is not None}, eps={self.eps}"
        if self.gain_scale is not None:
            text += f", gain_scale={self.gain_scale}"
        return f"{text}, same=True" if self.extent else text


class Standardised(nn.Module):
    """What blocks that keep a strided convolution's weight, and standardise it at every run, have beside the others.

    Comes before the block in the list of bases.
    """

    weight: nn.Parameter
    gain: nn.Parameter | None

    def add_gain(self, gain_scale: float | None, eps: float) -> None:
        """Take the constants, and make a gain of 1 per filter where there is a constant beside it."""
        self.gain_scale, self.eps = gain_scale, eps
        shape = (self.weight.shape[0], *[1] * (self.weight.dim() - 1))
        self.register_parameter("gain", nn.Parameter(torch.ones(shape)) if gain_scale is not None else None)

    def reset_parameters(self) -> None:
        """Draw as the block does; gain 1."""
        super().reset_parameters()  # type: ignore[misc]  # of the block
        gain = self._parameters.get("gain")  # the block calls this before there is one
        if gain is not None:
            nn.init.ones_(gain)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{super().extra_repr()}, eps={self.eps}"
        return text if self.gain_scale is None else f"{text}, gain_scale={self.gain_scale}"


class SPDStdPointwiseConv(Standardised, SPDPointwiseConv):
    """A strided 1×1 convolution with weight standardisation: SPD → convolution over phases → standardised 1×1.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        scale: Block size; a number (two axes) or one per spatial axis.
        phase: Phase that the first convolution picks of each channel at the start.
        padding: As in `SPDPointwiseConv`.
        groups: Groups of the 1×1 convolution.
        bias: Whether the 1×1 convolution has a bias.
        gain_scale: Constant beside a learnable gain per filter; None for no gain.
        eps: Added to each filter's variance.
        mixed: G, channels whose phases are mixed with one another, as in `SPDPointwiseConv`.
        form: How the first convolution is computed; see `SPDConv`.

    Attributes:
        weight: (out_channels, in_channels / groups, 1, …), the strided convolution's own.
        bias: (out_channels,) or None.
        gain: (out_channels, 1, …) or None.
        phase_weight: (in_channels, G·s₁·s₂…, 1, …), one-hot at the start.

    Raises:
        ValueError: Arguments do not fit together, or an input is smaller than the window.
    """

    def __init__(  # noqa: PLR0913 - a convolution's arguments
        self,
        in_channels: int,
        out_channels: int,
        scale: int | Sequence[int] = 2,
        phase: int | Sequence[int] = 0,
        padding: Sequence[tuple[int, int]] | None = None,
        *,
        groups: int = 1,
        bias: bool = True,
        gain_scale: float | None = None,
        eps: float = EPS,
        mixed: int = 1,
        form: Form = "space_to_depth",
    ) -> None:
        """Make the block; the 1×1 weights are drawn as `torch.nn.Conv2d` draws them."""
        super().__init__(
            in_channels, out_channels, scale, phase, padding, groups=groups, bias=bias, mixed=mixed, form=form
        )
        self.add_gain(gain_scale, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        return spd_std_pointwise_conv(
            x, self.phase_weight, self.weight, self.bias, self.gain, self.scale, self.padding, self.gain_scale or 1.0,
            self.eps, self.groups, self.form,
        )  # fmt: skip
