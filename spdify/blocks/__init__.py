"""The modules that stay in converted models: plain, usable by hand."""

from spdify.blocks.spd_avg_pool import SPDAvgPool
from spdify.blocks.spd_conv import SPDConv, space_to_depth
from spdify.blocks.spd_max_pool import SPDMaxPool
from spdify.blocks.spd_pointwise_conv import SPDPointwiseConv

__all__ = ["SPDAvgPool", "SPDConv", "SPDMaxPool", "SPDPointwiseConv", "space_to_depth"]
