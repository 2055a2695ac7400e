"""CBAM behind stages or blocks (arXiv 1807.06521): a gate by channel, then one by position, which both start at one.

x · 2σ(MLP(mean x) + MLP(max x)), then · 2σ(norm(conv7[mean; max])): with the MLP's last layer and the norm's gain at
zero each gate is 2σ(0) = 1 in every precision. The factors stay, so that gates lie between 0 and 2, where the
original's are at most 1. The first rows of the MLP start in pairs of opposite sign, so that its ReLU never closes all.
The layers are timm's `CbamModule`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from spdify.blocks import ConvolutionalBlockAttention
from spdify.records import MAX_ENTRIES, Record
from spdify.rewrites.base import odd
from spdify.rewrites.inserted import InsertBlock, PlaceParams

WIDEST = 63


class AttentionParams(PlaceParams):
    """Parameters of `insert-cbam`.

    Attributes:
        position: As in `PlaceParams`, and so is `stages`.
        reduction: Channels for each one of the bottleneck, which has at least two.
        kernel: Taps of the spatial gate's convolution along each axis; odd.
    """

    reduction: int = Field(default=16, ge=1, le=MAX_ENTRIES, strict=True)
    kernel: Annotated[int, Field(ge=1, le=WIDEST, strict=True), AfterValidator(odd)] = 7


class InsertAttention(InsertBlock[AttentionParams]):
    """CBAM behind a stage or block, exact."""

    summary: ClassVar[str] = (
        "gates by channel and by position come behind a stage or block, and start at one (CBAM, arXiv:1807.06521, 3)"
    )
    params_type: ClassVar[type[Record]] = AttentionParams

    def block(self, channels: int) -> ConvolutionalBlockAttention:
        """Make a `ConvolutionalBlockAttention`."""
        return ConvolutionalBlockAttention(channels, reduction=self.params.reduction, kernel_size=self.params.kernel)
