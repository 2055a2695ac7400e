"""A subsampling slice becomes SPD → depthwise convolution that picks its phase (arXiv 2208.03641, section 3).

`x[:, :, a::s, b::s]` is phase (a, b) of space-to-depth with scale s; the other s² - 1 phases are lost. A depthwise
convolution over the phases that is one-hot at (a, b) computes the same, and may learn to use the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from spdify.blocks import SPDSubsample
from spdify.blocks.spd_pointwise_conv import one_phase
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import NoParams, Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Shape, Site


class ReplaceSubsamplingSlice(Rewrite[NoParams]):
    """Subsampling slice → SPD and a depthwise convolution, exact."""

    summary: ClassVar[str] = "a subsampling slice becomes SPD and a depthwise convolution (arXiv:2208.03641, 3)"
    operators: ClassVar[frozenset[Operator]] = frozenset({"slice"})
    params_type: ClassVar[type[Record]] = NoParams
    form_name: ClassVar[str] = "depthwise"

    def check(self, site: Site) -> str | None:
        """Refuse slices of tensors without exactly one axis of channels, or that skip whole blocks."""
        if (reason := super().check(site)) is not None:
            return reason
        if site.rank != len(site.axes) + 2:
            return f"it steps over {len(site.axes)} of {site.rank} axes: one of channels must be left beside the batch"
        if any(start >= step for start, step in zip(site.starts, site.geometry.stride, strict=True)):
            return f"it starts at {site.starts}, beyond the first block"
        return None

    def input_shapes(self, site: Site, spatial: Shape, *, batch: int) -> tuple[tuple[Shape, ...], ...]:
        """One trial, in the slice's own order of axes."""
        sizes = dict(zip(site.axes, spatial, strict=True))
        channels = site.geometry.in_channels
        return ((tuple(sizes.get(axis, channels if axis else batch) for axis in range(site.rank)),),)

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact."""
        return Claim(value="exact", training="same gradient for the input; the one-hot phase weights start to learn")

    def build(self, site: Site) -> SPDSubsample:
        """Make an `SPDSubsample`."""
        return SPDSubsample(site.geometry.in_channels, site.geometry.stride, site.starts, site.axes)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - a slice has none
        """Pick the slice's phase of every channel."""
        with torch.device("meta"):  # the layout is wanted, not a block
            like = self.build(site).weight
        return {"weight": one_phase(torch.empty_like(like, device="cpu"), site.geometry.stride, site.starts)}
