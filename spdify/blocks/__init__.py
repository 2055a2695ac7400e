"""The modules that stay in converted models: plain, usable by hand."""

from spdify.blocks.phases import space_to_depth
from spdify.blocks.spd_avg_pool import SPDAvgPool
from spdify.blocks.spd_cond_conv import SPDCondConv
from spdify.blocks.spd_conv import SPDConv
from spdify.blocks.spd_max_pool import SPDMaxPool
from spdify.blocks.spd_per_channels import SPDPerChannels
from spdify.blocks.spd_pointwise_conv import SPDPointwiseConv
from spdify.blocks.spd_std_conv import SPDStdConv, SPDStdPointwiseConv

__all__ = [
    "SPDAvgPool",
    "SPDCondConv",
    "SPDConv",
    "SPDMaxPool",
    "SPDPerChannels",
    "SPDPointwiseConv",
    "SPDStdConv",
    "SPDStdPointwiseConv",
    "space_to_depth",
]
