"""Strided operators learn how large a share of the map itself they let through: shape adaptors (arXiv 2008.00892).

A pool is mixed with its own input, a convolution with stride 1 with every second position of what it gives; both are
resized to a size that grows with the input's share (`spdify.blocks.shape_adaptor`). The share starts near zero, so the
function starts near that of before: off by about σ(a), 0.25 % at a = -6, of what the two maps differ by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from spdify.blocks import AdaptedConv, AdaptedPool
from spdify.blocks.shape_adaptor import START, positions
from spdify.records import Claim, Record
from spdify.rewrites.conv_site import plain_arguments
from spdify.rewrites.learned_size import LearnedSizeParams, LearnSize, halves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Geometry, Site

POOLS: dict[str, dict[int, Any]] = {
    "max_pool": {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "avg_pool": {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d},
}


class ShapeAdaptorParams(LearnedSizeParams):
    """Parameters of `adapt-shape`.

    Attributes:
        start: a at the start; the share of the map itself is σ(a). Sizes are those of before up to some 1/σ(a)
            positions: 400 for -6. The smaller it is, the more slowly it learns.
    """

    start: float = Field(default=START, ge=-12, le=0)


class AdaptShape(LearnSize[ShapeAdaptorParams]):
    """Strided operator → the same, mixed with its input by a shape adaptor; approximate, near exact at the start."""

    summary: ClassVar[str] = (
        "a pool, or a convolution that then runs with stride 1, is mixed with what it would drop, and the mixture "
        "gives its size (Shape Adaptor, arXiv:2008.00892, 3)"
    )
    params_type: ClassVar[type[Record]] = ShapeAdaptorParams

    def check(self, site: Site) -> str | None:
        """Refuse maps that would start with another size, and pools that pad by the size of each input."""
        if (reason := super().check(site)) is not None:
            return reason
        window = site.geometry
        if site.operator != "conv" and window.padding_mode == "same":
            return "a pool that pads by the size of each input is not offered"
        for call in site.calls:
            for axis, (size, wanted) in enumerate(
                zip(call.input[-window.dims :], call.output[-window.dims :], strict=True)
            ):
                every, up = self._mixed(site, size, axis)
                if positions(every, self.params.start, up=up) != wanted:
                    return f"{size} positions would not become {wanted} at first (set start lower)"
        return None

    def follows_only(self, site: Site) -> str:
        """Have no average pool of 2 lead."""
        if site.operator == "avg_pool" and set(site.geometry.kernel) == {2}:
            return "an average pool of 2 is the map resized to half: a mixture of both shows no share to learn"
        return ""

    def _mixed(self, site: Site, size: int, axis: int) -> tuple[int, bool]:
        """Give how many positions are mixed of `size` that come in, and whether halves are rounded up."""
        window = site.geometry
        if site.operator != "conv":
            return size, (halves(window) or ())[axis]
        if window.padding_mode == "same":  # as the strided convolution needs them
            steps = window.output_size(size, axis) - 1
            extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1
            return max(size - extent + 1, 2 * steps + 1), True
        plain = window.model_copy(update={"stride": (1,) * window.dims})
        return plain.output_size(size, axis), True

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Approximate."""
        learns = "the share" if self.leads else f"the share that {self.params.leader} has"
        words = "near the function of before at the start, as far as the share of the map itself is small"
        return Claim(value="approximate", training=f"{words}; {learns} learns, and sizes with it")

    def build(self, site: Site) -> nn.Module:
        """Make an `AdaptedConv` or `AdaptedPool`."""
        numbers: dict[str, Any] = {"start": self.params.start, "leads": self.leads}
        if site.operator == "conv":
            arguments, named = plain_arguments(site)
            return AdaptedConv(*arguments, **named, **numbers)
        window = site.geometry
        up = halves(window) or False
        return AdaptedPool(_pool(site.operator, window), window.dims, up=up, **numbers)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - the same for all
        """Pass all on as it was; the share is that of the start."""
        start = torch.full((1,), self.params.start, device="cpu")
        return self.with_size(start, dict(old), AdaptedPool.PARAMETER)


def _pool(operator: str, window: Geometry) -> nn.Module:
    """Make the pool that was there."""
    named: dict[str, Any] = {"ceil_mode": window.ceil_mode}
    if operator == "max_pool":
        named |= {"dilation": window.dilation}
    else:
        named |= {"count_include_pad": window.count_include_pad}
        named |= {"divisor_override": window.divisor_override} if window.dims > 1 else {}
    pool: nn.Module = POOLS[operator][window.dims](window.kernel, window.stride, window.padding, **named)
    return pool
