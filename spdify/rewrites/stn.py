"""A spatial transformer before the network (arXiv 1506.02025): it sees the image through an affine transformation.

y = sample(x, (I + Δ(x)) · grid) with a Δ whose last layer is zero is x: every position is read where it is, by a
bilinear interpolation. Positions are rounded, so what comes out is off by 1e-13 of the image in float64 and by some
1e-5 in float32. The sampling is PyTorch's `grid_sample`.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from spdify.blocks import SpatialTransformer
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.drawing import drawn_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Site

WIDEST = 1024


class SpatialTransformerParams(Record):
    """Parameters of `insert-stn`.

    Attributes:
        width: Channels of the first layer of the network that chooses the transformation; the others have twice as
            many.
    """

    width: int = Field(default=16, ge=1, le=WIDEST, strict=True)


class InsertSpatialTransformer(Rewrite[SpatialTransformerParams]):
    """A spatial transformer before the network, exact."""

    summary: ClassVar[str] = (
        "the image is seen through an affine transformation, chosen for each, which starts as the identity "
        "(STN, arXiv:1506.02025, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"input"})
    params_type: ClassVar[type[Record]] = SpatialTransformerParams
    form_name: ClassVar[str] = "block"

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - there is one
        """Exact, to the rounding of positions."""
        words = (
            "same gradients for the original weights at the start; the last layer of what chooses the transformation "
            "learns first, then the rest"
        )
        return Claim(value="exact", training=words)

    def build(self, site: Site) -> SpatialTransformer:
        """Make a `SpatialTransformer`."""
        return SpatialTransformer(site.geometry.in_channels, width=self.params.width)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is kept
        """Draw the weights of a fresh block, the same each time."""
        return drawn_weights(lambda: self.build(site), zlib.crc32(site.name.encode()))
