"""An average pool becomes SPD → convolution: a mean is a sum with equal weights (arXiv 2208.03641, section 3).

Where padding is not counted, or ceil_mode lets windows reach past the edge, the sum is multiplied by the window's size
over the number of positions that PyTorch counts there. Same padding (TensorFlow's) comes before and counts as input.
The paper's own form is one convolution over all channels, without such a factor (`spdify.rewrites.dense_pool`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spdify.blocks import SPDAvgPool
from spdify.records import Claim, Operator, Record
from spdify.rewrites.dense_pool import dense_block, dense_weights, mean_claim
from spdify.rewrites.pool import ReplacePool

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spdify.records import Site


class AveragePoolParams(Record):
    """Parameters of `replace-average-pool`: `depthwise` is exact, `conv` the paper's, over all channels."""

    form: Literal["depthwise", "conv"] = "depthwise"


class ReplaceAveragePool(ReplacePool[AveragePoolParams]):
    """Average pool → SPD and a convolution; exact, but where one over all channels meets a divisor that varies."""

    summary: ClassVar[str] = (
        "an average pool becomes SPD and a depthwise convolution with the same function, "
        "or the paper's SPD-Conv (arXiv:2208.03641, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool"})
    params_type: ClassVar[type[Record]] = AveragePoolParams

    def claim(self, site: Site) -> Claim:
        """Exact; of the paper's form, where the divisor is the same everywhere."""
        if self.params.form == "conv":
            return mean_claim(site)
        return Claim(value="exact", training="same gradient for the input; the window's weights start to learn")

    def block(self, site: Site, channels: int) -> nn.Module:
        """Make an `SPDAvgPool`, or an `SPDConv` over all channels."""
        if self.params.form == "conv":
            return dense_block(site, channels)
        window = site.geometry
        return SPDAvgPool(
            channels, window.kernel, window.stride, window.padding, ceil_mode=window.ceil_mode,
            count_include_pad=window.count_include_pad, divisor_override=window.divisor_override,
            same=window.padding_mode == "same",
        )  # fmt: skip

    def block_weights(self, site: Site, channels: int) -> dict[str, Tensor]:
        """Give each channel's window mean."""
        if self.params.form == "conv":
            return dense_weights(site, channels)
        block = self.layout(site, channels)
        assert isinstance(block, SPDAvgPool)  # noqa: S101 - for the type checker
        return {"weight": block.pool_weight()}
