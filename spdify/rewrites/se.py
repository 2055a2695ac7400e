"""Squeeze-and-excitation behind stages or blocks (arXiv 1709.01507): a gate by channel, which starts at one.

x · 2σ(W₂·relu(W₁·mean(x) + b₁) + b₂) with W₂ = 0 and b₂ = 0 is x: 2σ(0) = 1 in every precision. The factor 2 stays,
so a gate may double a channel as well as close it; the original's gates are at most 1. The rows of W₁ start in pairs of
opposite sign, so that the ReLU never closes all. The layers are timm's `SEModule`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from spdify.blocks import SqueezeExcitation
from spdify.records import MAX_ENTRIES, Record
from spdify.rewrites.inserted import InsertBlock, PlaceParams


class SqueezeExcitationParams(PlaceParams):
    """Parameters of `insert-se`.

    Attributes:
        position: As in `PlaceParams`, and so is `stages`.
        reduction: Channels for each one of the bottleneck, which has at least two.
    """

    reduction: int = Field(default=16, ge=1, le=MAX_ENTRIES, strict=True)


class InsertSqueezeExcitation(InsertBlock[SqueezeExcitationParams]):
    """Squeeze-and-excitation behind a stage or block, exact."""

    summary: ClassVar[str] = "a gate by channel comes behind a stage or block, and starts at one (arXiv:1709.01507, 3)"
    params_type: ClassVar[type[Record]] = SqueezeExcitationParams

    def block(self, channels: int) -> SqueezeExcitation:
        """Make a `SqueezeExcitation`."""
        return SqueezeExcitation(channels, reduction=self.params.reduction)
