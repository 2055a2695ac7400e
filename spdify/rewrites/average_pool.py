"""An average pool becomes SPD → depthwise convolution: a mean is a sum with equal weights (arXiv 2208.03641, 3).

Where padding is not counted, or ceil_mode lets windows reach past the edge, the sum is multiplied by the window's size
over the number of positions that PyTorch counts there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from spdify.blocks import SPDAvgPool
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import NoParams, Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Site


class ReplaceAveragePool(Rewrite[NoParams]):
    """Average pool → SPD and depthwise convolution, exact."""

    summary: ClassVar[str] = (
        "an average pool becomes SPD and a depthwise convolution with the same function (arXiv:2208.03641, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool"})
    params_type: ClassVar[type[Record]] = NoParams

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact."""
        return Claim(value="exact", training="same gradient for the input; the window's weights start to learn")

    def build(self, site: Site) -> SPDAvgPool:
        """Make an `SPDAvgPool`."""
        window = site.geometry
        return SPDAvgPool(
            window.in_channels, window.kernel, window.stride, window.padding, ceil_mode=window.ceil_mode,
            count_include_pad=window.count_include_pad, divisor_override=window.divisor_override,
        )  # fmt: skip

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - a pool has none
        """Give the window's mean as a depthwise weight."""
        with torch.device("meta"):  # the layout is wanted, not a block
            block = self.build(site)
        return {"weight": block.pool_weight()}
