"""Non-local attention behind stages or blocks (arXiv 1711.07971): a branch that starts silent.

x + norm(W·softmax(θ(x)ᵀφ(x))·g(x)) with a norm whose gain is zero is x, in every precision. The layers are timm's
`NonLocalAttn`. The attention of a map of H·W positions has (H·W)² entries, so only the last stages are for it.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from spdify.blocks import NonLocal
from spdify.records import MAX_ENTRIES, Record
from spdify.rewrites.inserted import InsertBlock, PlaceParams
from spdify.rulebook.form import Position


class NonLocalParams(PlaceParams):
    """Parameters of `insert-non-local`.

    Attributes:
        position: As in `PlaceParams`.
        stages: Likewise; the last one, as the attention has (H·W)² entries.
        reduction: Channels for each one of the three maps that the attention is made of; 2 in the paper.
        scale: Whether the products that the softmax takes are divided by √C, which keeps them in half precision's
            range; the paper's are not.
    """

    stages: Position = "-1"
    reduction: int = Field(default=2, ge=1, le=MAX_ENTRIES, strict=True)
    scale: bool = Field(default=True, strict=True)


class InsertNonLocal(InsertBlock[NonLocalParams]):
    """Non-local attention behind a stage or block, exact."""

    summary: ClassVar[str] = (
        "attention over all positions comes behind a stage or block, as a branch that starts silent "
        "(arXiv:1711.07971, 3.3)"
    )
    params_type: ClassVar[type[Record]] = NonLocalParams

    def block(self, channels: int) -> NonLocal:
        """Make a `NonLocal`."""
        return NonLocal(channels, reduction=self.params.reduction, scale=self.params.scale)
