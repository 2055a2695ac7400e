"""The receptive field block behind stages or blocks (arXiv 1711.07767): dilated branches that start silent.

act(x + 0.1·W·[branches(x)]), with a 1x1 convolution W of zero, is act(x). Without an activation that is x, in every
precision; relu(x), which the paper has, is x only where x is not negative, as it is behind a ReLU.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from spdify.blocks import ReceptiveField
from spdify.records import MAX_ENTRIES, Claim, Record, Site
from spdify.rewrites.inserted import InsertBlock, PlaceParams
from spdify.rulebook.form import Position


class ReceptiveFieldParams(PlaceParams):
    """Parameters of `insert-rfb`.

    Attributes:
        position: As in `PlaceParams`.
        stages: Likewise.
        reduction: Channels for each one of a branch.
        scale: Factor of what the branches add.
        activation: `none`, or `relu` as in the paper: the same function only where maps are not negative.
    """

    stages: Position = "-1"
    reduction: int = Field(default=8, ge=1, le=MAX_ENTRIES, strict=True)
    scale: float = Field(default=0.1, gt=0, le=1e3, allow_inf_nan=False)
    activation: Literal["none", "relu"] = "none"


class InsertReceptiveField(InsertBlock[ReceptiveFieldParams]):
    """RFB behind a stage or block, exact but for an activation."""

    summary: ClassVar[str] = (
        "branches of growing receptive fields (RFB) come behind a stage or block, and start silent "
        "(arXiv:1711.07767, 3)"
    )
    params_type: ClassVar[type[Record]] = ReceptiveFieldParams

    def claim(self, site: Site) -> Claim:
        """Exact without an activation."""
        claim = super().claim(site)
        if self.params.activation == "none":
            return claim
        words = "negative entries become zero, and pass no gradient; the block's last layer learns first, then the rest"
        return Claim(value="approximate", training=words)

    def block(self, channels: int) -> ReceptiveField:
        """Make a `ReceptiveField`."""
        return ReceptiveField(
            channels,
            reduction=self.params.reduction,
            scale=self.params.scale,
            activation=self.params.activation,
        )
