"""A pool becomes space-to-depth, and the next convolution takes all of its positions (arXiv 2208.03641, section 3).

Where the pool's window is the block itself, the mean is the sum of the block's positions over their number, so the next
convolution reads the same when each position gets an equal share of its weight: pool and convolution become one
SPD-Conv. Where the channels cannot go on, and for any other window, a convolution follows at once, which starts as the
mean of the window. A maximum is no convolution: max pools start as the mean too, which is not their function.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from spdify.blocks import SpaceToDepth
from spdify.blocks.phases import split_axis
from spdify.records import Claim, Layout, Operator, Record
from spdify.rewrites.dense_pool import dense_block, dense_weights, last_block_repeats, mean_claim
from spdify.rewrites.pool import ReplacePool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.blocks.phases import Edge
    from spdify.records import Geometry, Site


class FoldPoolParams(Record):
    """Parameters of `fold-pool`.

    Attributes:
        channels: `carry` lets the next convolution take s² times the channels where the window allows it; `reduce` puts
            a convolution of its own behind each.
        max_pool: For max pools: `approximate` starts as the mean; `keep` leaves them alone.
    """

    channels: Literal["carry", "reduce"] = "carry"
    max_pool: Literal["approximate", "keep"] = "approximate"


class FoldPool(ReplacePool[FoldPoolParams]):
    """Pool → space-to-depth, taken in by the next convolution: average pools exact, max pools approximate."""

    summary: ClassVar[str] = (
        "a pool becomes space-to-depth and the next convolution reads all positions (arXiv:2208.03641, 3): "
        "an average pool with the same function, a max pool starting as a mean"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool", "max_pool"})
    params_type: ClassVar[type[Record]] = FoldPoolParams

    def keep(self, site: Site) -> str | None:
        """Keep max pools when told so."""
        stays = site.operator == "max_pool" and self.params.max_pool == "keep"
        return 'max pools stay (max_pool = "keep")' if stays else None

    def leaves(self, site: Site) -> Layout | None:
        """All positions of each channel's blocks, where the pool is one that space-to-depth can stand for."""
        if self._edge(site) is None:
            return None
        return Layout(runs=((site.geometry.in_channels, math.prod(site.geometry.stride)),), how="mean")

    def reduced(self) -> Self:
        """Give the same with a convolution of its own behind each."""
        return type(self)(self.params.model_copy(update={"channels": "reduce"}))

    def _edge(self, site: Site) -> Edge | None:
        """Give what becomes of the last, unfilled blocks; None where space-to-depth alone cannot stand for the pool."""
        if self.params.channels == "reduce" or site.operation or site.channels:
            return None
        return _mean_edge(site.geometry) if site.operator == "avg_pool" else _max_edge(site.geometry)

    def claim(self, site: Site) -> Claim:
        """Exact for average pools that divide by one number, else approximate."""
        if site.operator == "max_pool":
            learner = "a convolution" if self.leaves(site) is None else "the next layers"
            return Claim(
                value="approximate", training=f"starts as a mean; {learner} learns in the place of the maximum"
            )
        if self.leaves(site) is not None:
            words = "same gradient for the input; the next layers' weights for the positions start equal and then part"
            return Claim(value="exact", training=words)
        return mean_claim(site)

    def build(self, site: Site) -> nn.Module:
        """Make a `SpaceToDepth`, or what ends with a convolution, one per channel count."""
        edge = self._edge(site)
        return super().build(site) if edge is None else SpaceToDepth(site.geometry.stride, edge=edge)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the window's mean, or nothing for a `SpaceToDepth`."""
        return super().weights(site, old) if self._edge(site) is None else {}

    def block(self, site: Site, channels: int) -> nn.Module:
        """Make a dense `SPDConv`."""
        return dense_block(site, channels)

    def block_weights(self, site: Site, channels: int) -> dict[str, Tensor]:
        """Give each channel's window mean."""
        return dense_weights(site, channels)


def _mean_edge(window: Geometry) -> Edge | None:
    """Give the edge with which the mean of each block is the average pool."""
    size = math.prod(window.kernel)
    if window.kernel != window.stride or any(window.padding) or window.divisor_override not in {None, size}:
        return None
    if window.padding_mode == "same":  # timm's counts the zeros, which lie above alone where one position is missing
        return "zeros" if max(window.stride) <= 2 else None  # noqa: PLR2004
    if not window.ceil_mode:
        return "crop"
    if window.divisor_override is not None:
        return "zeros"
    return "replicate" if last_block_repeats(window) else None


def _max_edge(window: Geometry) -> Edge | None:
    """Give the edge with which space-to-depth has the sizes of the pool, for inputs of every size."""
    if window.padding_mode == "same":
        return "replicate"
    windows = zip(window.kernel, window.stride, window.padding, window.dilation, strict=True)
    # The pool gives floor((n + e) / s) + 1 outputs.
    excess = [split_axis(k, s, p, d, ceil_mode=window.ceil_mode).excess for k, s, p, d in windows]
    if all(e == -s for e, s in zip(excess, window.stride, strict=True)):
        return "crop"
    return "replicate" if all(e == -1 for e in excess) else None
