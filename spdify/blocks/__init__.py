"""The modules that stay in converted models: plain, usable by hand."""

from spdify.blocks.aspp import AtrousPyramid
from spdify.blocks.blurring import BlurredActivation, BlurredAvgPool, BlurredConv, BlurredMaxPool
from spdify.blocks.conv_spd import ConvSPD
from spdify.blocks.deformable_conv import DeformableConv2d
from spdify.blocks.dynamic_pool import DynamicConv, DynamicPool
from spdify.blocks.gates import ConvolutionalBlockAttention, SqueezeExcitation
from spdify.blocks.non_local import NonLocal
from spdify.blocks.phases import space_to_depth
from spdify.blocks.rfb import ReceptiveField
from spdify.blocks.scale_fusion import AdaptiveScaleFusion
from spdify.blocks.shape_adaptor import AdaptedConv, AdaptedPool
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
from spdify.blocks.unstrided_conv import UnstridedConv

__all__ = [
    "AdaptedConv",
    "AdaptedPool",
    "AdaptiveScaleFusion",
    "AtrousPyramid",
    "BlurredActivation",
    "BlurredAvgPool",
    "BlurredConv",
    "BlurredMaxPool",
    "ConvSPD",
    "ConvolutionalBlockAttention",
    "DeformableConv2d",
    "DynamicConv",
    "DynamicPool",
    "NonLocal",
    "ReceptiveField",
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
    "UnstridedConv",
    "space_to_depth",
]
