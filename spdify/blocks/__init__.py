"""The modules that stay in converted models: plain, usable by hand."""

from spdify.blocks.conv_spd import ConvSPD
from spdify.blocks.deformable_conv import DeformableConv2d
from spdify.blocks.gates import ConvolutionalBlockAttention, SqueezeExcitation
from spdify.blocks.phases import space_to_depth
from spdify.blocks.scale_fusion import AdaptiveScaleFusion
from spdify.blocks.spatial_transformer import SpatialTransformer
from spdify.blocks.spd_avg_pool import SPDAvgPool
from spdify.blocks.spd_batch_norm import SPDBatchNorm2d
from spdify.blocks.spd_cond_conv import SPDCondConv
from spdify.blocks.spd_conv import SPDConv
from spdify.blocks.spd_functional_conv import SPDFunctionalConv
from spdify.blocks.spd_group_norm import SPDGroupNorm
from spdify.blocks.spd_max_pool import SPDMaxPool
from spdify.blocks.spd_only import SpaceToDepth
from spdify.blocks.spd_per_channels import SPDPerChannels
from spdify.blocks.spd_pointwise_conv import SPDPointwiseConv
from spdify.blocks.spd_std_conv import SPDStdConv, SPDStdPointwiseConv
from spdify.blocks.spd_subsample import SPDSubsample
from spdify.blocks.std_conv_spd import StdConvSPD

__all__ = [
    "AdaptiveScaleFusion",
    "ConvSPD",
    "ConvolutionalBlockAttention",
    "DeformableConv2d",
    "SPDAvgPool",
    "SPDBatchNorm2d",
    "SPDCondConv",
    "SPDConv",
    "SPDFunctionalConv",
    "SPDGroupNorm",
    "SPDMaxPool",
    "SPDPerChannels",
    "SPDPointwiseConv",
    "SPDStdConv",
    "SPDStdPointwiseConv",
    "SPDSubsample",
    "SpaceToDepth",
    "SpatialTransformer",
    "SqueezeExcitation",
    "StdConvSPD",
    "space_to_depth",
]
