"""The modules that stay in converted models: plain, usable by hand."""

from spdify.blocks.spd_avg_pool import SPDAvgPool
from spdify.blocks.spd_conv import SPDConv, space_to_depth
from spdify.blocks.spd_functional_conv import SPDFunctionalConv
from spdify.blocks.spd_max_pool import SPDMaxPool
from spdify.blocks.spd_pointwise_conv import SPDPointwiseConv
from spdify.blocks.spd_subsample import SPDSubsample

__all__ = [
    "SPDAvgPool",
    "SPDConv",
    "SPDFunctionalConv",
    "SPDMaxPool",
    "SPDPointwiseConv",
    "SPDSubsample",
    "space_to_depth",
]
