"""A max pool becomes SPD → a tournament of convolutions and ReLUs (exact), or SPD → one convolution (the paper's).

Exact: max(a, b) = b + relu(a - b), see `spdify.blocks.spd_max_pool`. The paper (arXiv 2208.03641, section 3) puts
SPD-Conv in the place of every pool: a convolution cannot take a maximum, so `form = "conv"` is approximate and starts
as the mean of the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spdify.blocks import SPDMaxPool
from spdify.records import Claim, Operator, Record
from spdify.rewrites.dense_pool import dense_block, dense_weights
from spdify.rewrites.pool import ReplacePool

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spdify.records import Site


class MaxPoolParams(Record):
    """Parameters of `replace-max-pool`: `tournament` is exact, `conv` the paper's, `keep` leaves max pools alone."""

    form: Literal["tournament", "conv", "keep"] = "tournament"


class ReplaceMaxPool(ReplacePool[MaxPoolParams]):
    """Max pool → SPD and a tournament, exact; or SPD and one convolution, approximate."""

    summary: ClassVar[str] = (
        "a max pool becomes SPD and a tournament of depthwise convolutions and ReLUs with the same function, "
        "or the paper's SPD-Conv (arXiv:2208.03641, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"max_pool"})
    params_type: ClassVar[type[Record]] = MaxPoolParams

    def keep(self, site: Site) -> str | None:  # noqa: ARG002 - the same for all
        """Keep max pools when told so."""
        return 'max pools stay (form = "keep")' if self.params.form == "keep" else None

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact for the tournament, approximate for the convolution."""
        if self.params.form == "conv":
            return Claim(value="approximate", training="a convolution learns in the place of the maximum")
        return Claim(
            value="exact",
            training="same gradient for the input, but for ties (which of two equal taps gets it); "
            "the tournament's weights start to learn",
        )

    def block(self, site: Site, channels: int) -> nn.Module:
        """Make an `SPDMaxPool`, or an `SPDConv` over all channels."""
        if self.params.form == "conv":
            return dense_block(site, channels)
        window = site.geometry
        return SPDMaxPool(
            channels, window.kernel, window.stride, window.padding, window.dilation, ceil_mode=window.ceil_mode,
            same=window.padding_mode == "same",
        )  # fmt: skip

    def block_weights(self, site: Site, channels: int) -> dict[str, Tensor]:
        """Give the tournament's weights, or each channel's window mean."""
        if self.params.form == "conv":
            return dense_weights(site, channels)
        block = self.layout(site, channels)
        assert isinstance(block, SPDMaxPool)  # noqa: S101 - for the type checker
        return block.pool_weights()
