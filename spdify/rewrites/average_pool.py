"""An average pool becomes SPD → depthwise convolution: a mean is a sum with equal weights (arXiv 2208.03641, 3).

Where padding is not counted, or ceil_mode lets windows reach past the edge, the sum is multiplied by the window's size
over the number of positions that PyTorch counts there. Same padding (TensorFlow's) comes before and counts as input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from spdify.blocks import SPDAvgPool
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import NoParams
from spdify.rewrites.pool import ReplacePool

if TYPE_CHECKING:
    from torch import Tensor

    from spdify.records import Site


class ReplaceAveragePool(ReplacePool[NoParams]):
    """Average pool → SPD and depthwise convolution, exact."""

    summary: ClassVar[str] = (
        "an average pool becomes SPD and a depthwise convolution with the same function (arXiv:2208.03641, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool"})
    params_type: ClassVar[type[Record]] = NoParams

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact."""
        return Claim(value="exact", training="same gradient for the input; the window's weights start to learn")

    def block(self, site: Site, channels: int) -> SPDAvgPool:
        """Make an `SPDAvgPool`."""
        window = site.geometry
        return SPDAvgPool(
            channels, window.kernel, window.stride, window.padding, ceil_mode=window.ceil_mode,
            count_include_pad=window.count_include_pad, divisor_override=window.divisor_override,
            same=window.padding_mode == "same",
        )  # fmt: skip

    def block_weights(self, site: Site, channels: int) -> dict[str, Tensor]:
        """Give the window's mean as a depthwise weight."""
        block = self.layout(site, channels)
        assert isinstance(block, SPDAvgPool)  # noqa: S101 - for the type checker
        return {"weight": block.pool_weight()}
