"""Strided operators learn by how much they shrink each axis: DynOPool (arXiv 2205.15254).

A pool becomes DynOPool, a convolution runs with stride 1 and DynOPool follows; one of one tap runs after it. The ratio
starts at one half: there DynOPool is a max pool of 2 (`spdify.blocks.dynamic_pool`), so a max pool of 2 stays what it
was, and all else is approximate: a maximum over two positions stands where the stride took one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from spdify.blocks import DynamicConv, DynamicPool
from spdify.blocks.dynamic_pool import HALF
from spdify.records import Claim, Record
from spdify.rewrites.conv_site import plain_arguments
from spdify.rewrites.learned_size import LearnedSizeParams, LearnSize, halves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Geometry, Site


class LearnRatio(LearnSize[LearnedSizeParams]):
    """Strided operator → DynOPool; exact for a max pool of 2."""

    summary: ClassVar[str] = (
        "a pool, or a convolution that then runs with stride 1, learns by how much it shrinks each axis "
        "(DynOPool, arXiv:2205.15254)"
    )
    params_type: ClassVar[type[Record]] = LearnedSizeParams

    def claim(self, site: Site) -> Claim:
        """Exact for a max pool of 2; approximate for all else."""
        learns = "the ratio" if self.leads else f"the ratio that {self.params.leader} has"
        if site.operator == "max_pool" and _is_plain_of_2(site.geometry):
            return Claim(value="exact", training=f"same gradient for the input at the start; {learns} learns")
        words = "it takes the maximum over two positions along each axis in the place of its own window"
        return Claim(value="approximate", training=f"{words}; {learns} learns")

    def build(self, site: Site) -> DynamicPool:
        """Make a `DynamicConv` or `DynamicPool`."""
        if site.operator == "conv":
            arguments, named = plain_arguments(site)
            return DynamicConv(*arguments, **named, leads=self.leads)
        return DynamicPool(site.geometry.dims, up=halves(site.geometry) or False, leads=self.leads)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pass all on as it was; the ratio is one half."""
        start = torch.full((site.geometry.dims,), HALF, device="cpu")
        return self.with_size(start, dict(old), DynamicPool.PARAMETER)


def _is_plain_of_2(window: Geometry) -> bool:
    """Whether windows are pairs of positions along each axis, and an odd one at the end is left out."""
    rounds_down = not window.ceil_mode and window.padding_mode != "same"
    return set(window.kernel) == {2} and not any(window.padding) and set(window.dilation) == {1} and rounds_down
