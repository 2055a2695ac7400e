"""Each block as what it is seen from outside: the form that networks are deployed in.

An SPD-Conv with K taps over blocks of s positions is a convolution with kernel K·s and stride s: see
`spdify.blocks.phases`. Nothing here relies on zeros from the start: trained weights give larger kernels, untouched ones
fold back to what there was before.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spdify.blocks.aspp import AtrousPyramid
from spdify.blocks.blurring import BlurredActivation, BlurredAvgPool, BlurredConv, BlurredMaxPool
from spdify.blocks.conv_spd import ConvSPD, first_phase
from spdify.blocks.deformable_conv import DeformableConv2d
from spdify.blocks.dynamic_pool import DynamicConv, DynamicPool
from spdify.blocks.fused_max_pool import FusedMaxPool
from spdify.blocks.gates import ConvolutionalBlockAttention, SqueezeExcitation
from spdify.blocks.non_local import NonLocal
from spdify.blocks.padded_conv import strided_convolution
from spdify.blocks.phases import scatter_taps
from spdify.blocks.rfb import ReceptiveField
from spdify.blocks.scale_fusion import AdaptiveScaleFusion
from spdify.blocks.shape_adaptor import AdaptedConv, AdaptedPool
from spdify.blocks.spatial_transformer import SpatialTransformer
from spdify.blocks.spd_avg_pool import SPDAvgPool
from spdify.blocks.spd_batch_norm import SPDBatchNorm2d
from spdify.blocks.spd_cond_conv import SPDCondConv
from spdify.blocks.spd_conv import SPDConv, strided_weight
from spdify.blocks.spd_functional_conv import SPDFunctionalConv
from spdify.blocks.spd_group_norm import SPDGroupNorm
from spdify.blocks.spd_max_pool import SPDMaxPool
from spdify.blocks.spd_only import SpaceToDepth
from spdify.blocks.spd_per_channels import SPDPerChannels
from spdify.blocks.spd_pointwise_conv import SPDPointwiseConv, one_phase
from spdify.blocks.spd_std_conv import SPDStdConv, SPDStdPointwiseConv, standardised
from spdify.blocks.spd_subsample import SPDSubsample
from spdify.blocks.std_conv_spd import StdConvSPD
from spdify.blocks.unstrided_conv import UnstridedConv

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

POOLS: dict[str, dict[int, Any]] = {
    "max": {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "avg": {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d},
}


class Subsample(nn.Module):
    """Every s-th position along some axes.

    Args:
        starts: First position, by axis.
        steps: Step, by axis.
    """

    def __init__(self, starts: dict[int, int], steps: dict[int, int]) -> None:
        """Take the slice's numbers."""
        super().__init__()
        self.starts, self.steps = starts, steps

    def forward(self, x: Tensor) -> Tensor:
        """Take the slice."""
        return x[tuple(slice(self.starts.get(axis), None, self.steps.get(axis)) for axis in range(x.dim()))]

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"starts={self.starts}, steps={self.steps}"


@torch.no_grad()
def fused(block: nn.Module) -> nn.Module | None:
    """Give the deployed form of a block, with copies of its weights; None where a block has none (see `NO_OTHER_FORM`).

    Args:
        block: A block of `spdify.blocks`; not changed.

    Returns:
        A module that computes the same, to rounding: for convolutions and for trained average pools, `torch.nn`'s
        strided convolution (or one with a padding for each side); pools and slices that nobody has trained, as they
        were. Blocks that pad by the size of their input stay blocks, in their strided form.

    Raises:
        KeyError: It is no block.
    """
    make = _FORMS.get(type(block))
    if make is None and type(block) not in NO_OTHER_FORM:
        raise KeyError(type(block).__name__)
    made = None if make is None else make(block)
    return None if made is None else made.train(block.training)


def _spd_conv(block: SPDConv) -> nn.Module:
    return strided_convolution(
        strided_weight(block.weight, block.scale), block.bias, block.scale, block.padding, groups=block.groups,
        margin=block.margin, margin_mode=block.padding_mode,
    )  # fmt: skip


def _std_conv(block: SPDStdConv) -> nn.Module:
    weight = standardised(block.weight, block.gain, block.gain_scale or 1.0, block.eps)
    scale, padding = [axis.scale for axis in block.axes], [axis.padding for axis in block.axes]
    return strided_convolution(
        strided_weight(scatter_taps(weight, block.axes) + block.phase_weight, scale), block.bias, scale, padding,
        groups=block.groups, margin=block.extent, margin_mode="same" if block.extent else "zeros",
    )  # fmt: skip


def _pointwise(block: SPDPointwiseConv) -> nn.Module:
    return _phased(block, block.weight)


def _std_pointwise(block: SPDStdPointwiseConv) -> nn.Module:
    return _phased(block, standardised(block.weight, block.gain, block.gain_scale or 1.0, block.eps))


def _phased(block: SPDPointwiseConv, weight: Tensor) -> nn.Module:
    """Fold the first convolution into the 1×1 one where it reads one phase of each channel alone; else keep both."""
    phases = strided_weight(block.phase_weight, block.scale)
    channels = torch.arange(block.in_channels, device=phases.device)
    own = phases[channels, channels % block.mixed]
    alone = torch.equal(phases.count_nonzero(), own.count_nonzero())
    if alone and int(own.ne(0).any(dim=0).sum()) <= 1:
        per_group = own.reshape(block.groups, 1, -1, *block.scale)
        filters = weight.reshape(block.groups, -1, *weight.shape[1:])
        return strided_convolution(
            (filters * per_group).flatten(0, 1), block.bias, block.scale, block.padding, groups=block.groups
        )
    ones = (1,) * len(block.scale)
    parts = {
        "phases": strided_convolution(
            phases, None, block.scale, block.padding, groups=block.in_channels // block.mixed
        ),
        "pointwise": strided_convolution(weight, block.bias, ones, [(0, 0)] * len(ones), groups=block.groups),
    }
    return nn.Sequential(OrderedDict(parts))


def _max_pool(block: SPDMaxPool) -> nn.Module:
    if block.window.extent:
        return _strided(block)
    own = dict(block.named_parameters())
    if all(torch.equal(own[name].cpu(), start.to(own[name].dtype)) for name, start in block.pool_weights().items()):
        pool: nn.Module = POOLS["max"][len(block.scale)](
            block.kernel_size, block.stride, block.padding, block.dilation, ceil_mode=block.ceil_mode
        )
        return pool
    return _strided(block) if block.window.taps else FusedMaxPool(block)


def _avg_pool(block: SPDAvgPool) -> nn.Module:
    if block.extent:
        return _strided(block)
    if torch.equal(block.weight.cpu(), block.pool_weight().to(block.weight.dtype)):
        divisor = {} if block.divisor_override is None else {"divisor_override": block.divisor_override}
        pool: nn.Module = POOLS["avg"][len(block.scale)](
            block.kernel_size, block.stride, block.pads, ceil_mode=block.ceil_mode,
            count_include_pad=block.count_include_pad, **divisor,
        )  # fmt: skip
        return pool
    if block.window is not None:
        return _strided(block)
    weight = strided_weight(block.weight, block.scale)
    return strided_convolution(weight, None, block.scale, block.padding, groups=block.in_channels)


def _subsample(block: SPDSubsample) -> nn.Module:
    if torch.equal(block.weight, one_phase(block.weight, block.scale, block.starts)):
        numbers = [dict(zip(block.axes, values, strict=True)) for values in (block.starts, block.scale)]
        return Subsample(*numbers)
    return _strided(block)


def _conv_spd(block: ConvSPD) -> nn.Module | None:
    return _reduced(block, block.weight)


def _std_conv_spd(block: StdConvSPD) -> nn.Module | None:
    return _reduced(block, standardised(block.weight, block.gain, block.gain_scale or 1.0, block.eps))


def _reduced(block: ConvSPD, weight: Tensor) -> nn.Module | None:
    """Fold a convolution at every position whose reduction takes phase 0 alone: the strided convolution."""
    if block.reduction_weight is None:
        return None
    start = first_phase(block.out_channels, block.groups, block.stride)
    if not torch.equal(block.reduction_weight, start.to(block.reduction_weight)):
        return None
    window = block.window
    # Stretched, since the one that makes the convolution looks for dilation itself.
    stretched = _stretched(weight, window.dilation)
    return strided_convolution(
        stretched, block.bias, block.stride, [(p, p) for p in window.padding], groups=block.groups,
        margin=window.margin, margin_mode=window.padding_mode,
    )  # fmt: skip


def _stretched(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Put zeros between the taps of a dilated kernel."""
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    whole = weight.new_zeros(*weight.shape[:2], *sizes)
    places: list[Any] = [slice(None, None, d) for d in dilation]
    whole[(..., *places)] = weight
    return whole


def _strided(block: nn.Module) -> nn.Module:
    """Copy a block whose other form is its own."""
    twin: Any = copy.deepcopy(block)
    twin.form = "strided"
    module: nn.Module = twin
    return module


_FORMS: dict[type[nn.Module], Callable[[Any], nn.Module | None]] = {
    AdaptedConv: lambda block: block.frozen(),
    AdaptedPool: lambda block: block.frozen(),
    ConvSPD: _conv_spd,
    DynamicConv: lambda block: block.frozen(),
    DynamicPool: lambda block: block.frozen(),
    SPDAvgPool: _avg_pool,
    SPDCondConv: _strided,
    SPDConv: _spd_conv,
    SPDFunctionalConv: _strided,
    SPDMaxPool: _max_pool,
    SPDPointwiseConv: _pointwise,
    SPDStdConv: _std_conv,
    SPDStdPointwiseConv: _std_pointwise,
    SPDSubsample: _subsample,
    StdConvSPD: _std_conv_spd,
}
#: Blocks that are what they are: they move positions to channels for whoever comes next, or choose among others.
NO_OTHER_FORM: dict[type[nn.Module], str] = {
    BlurredActivation: "it is deployed as it is",
    BlurredAvgPool: "it is deployed as it is",
    BlurredConv: "it is deployed as it is",
    BlurredMaxPool: "it is deployed as it is",
    AtrousPyramid: "it is deployed as it is",
    AdaptiveScaleFusion: "it is deployed as it is",
    ConvolutionalBlockAttention: "it is deployed as it is",
    NonLocal: "it is deployed as it is",
    ReceptiveField: "it is deployed as it is",
    DeformableConv2d: "it is deployed as it is",
    SpatialTransformer: "it is deployed as it is",
    SqueezeExcitation: "it is deployed as it is",
    SpaceToDepth: "the next layers read all positions as channels",
    SPDBatchNorm2d: "it normalises channels that were positions",
    SPDGroupNorm: "it normalises channels that were positions",
    UnstridedConv: "it is deployed as it is",
    SPDPerChannels: "it chooses among blocks, each of which is fused",
}
