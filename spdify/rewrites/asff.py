"""Adaptively spatial feature fusion behind a pyramid (arXiv 1911.09516): each level is mixed with its neighbours.

Level l becomes expand(Σ_m w_m · resize(level m)), with weights that are a softmax over the levels at every position.
What the softmax is of starts as a bias, which gives the level itself the share `own`, and `expand` starts as the
identity: so the level starts as own · itself plus the rest of the others, which is near what it was and not the same.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from spdify.blocks import AdaptiveScaleFusion
from spdify.records import MAX_ENTRIES, Claim, Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.drawing import drawn_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Shape, Site


class ScaleFusionParams(Record):
    """Parameters of `insert-asff`.

    Attributes:
        reach: How many levels to either side, in the order of sizes, take part in each.
        compress: Channels that each level is brought to for the weight maps.
        own: Share of the level itself at the start.
        interpolation: How a coarser level is brought to a finer one's size.
    """

    reach: int = Field(default=2, ge=1, le=64, strict=True)
    compress: int = Field(default=16, ge=1, le=MAX_ENTRIES, strict=True)
    own: float = Field(default=0.99, gt=0, lt=1, strict=True)
    interpolation: Literal["nearest", "bilinear"] = "nearest"


class InsertScaleFusion(Rewrite[ScaleFusionParams]):
    """Fusion of a pyramid's levels behind it, near exact."""

    summary: ClassVar[str] = (
        "the levels of a pyramid are mixed by weights chosen at every position, nearly all on the level itself at the "
        "start (ASFF, arXiv:1911.09516, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"pyramid"})
    params_type: ClassVar[type[Record]] = ScaleFusionParams
    form_name: ClassVar[str] = "block"

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Approximate."""
        share = f"{100 * (1 - self.params.own):.3g}%"
        words = f"each level starts with {share} of its neighbours, through new weights; all of these learn"
        return Claim(value="approximate", training=words)

    def input_shapes(self, site: Site, spatial: Shape, *, batch: int) -> tuple[tuple[Shape, ...], ...]:
        """One trial: every level, the smallest as large as asked for and the others in their proportion, rounded up."""
        outputs = [call.output for call in site.calls]
        least = min((shape[2:] for shape in outputs), key=lambda size: size[0] * size[1])
        levels = [
            (batch, shape[1], *(-(-n * m // k) for n, m, k in zip(spatial, shape[2:], least, strict=True)))
            for shape in outputs
        ]
        return (tuple(levels),)

    def build(self, site: Site) -> AdaptiveScaleFusion:
        """Make an `AdaptiveScaleFusion`."""
        outputs, params = [call.output for call in site.calls], self.params
        return AdaptiveScaleFusion(
            [shape[1] for shape in outputs], [shape[2:] for shape in outputs], reach=params.reach,
            compress=params.compress, own=params.own, interpolation=params.interpolation,
        )  # fmt: skip

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is kept
        """Draw the weights of a fresh block, the same each time."""
        return drawn_weights(lambda: self.build(site), zlib.crc32(site.name.encode()))
