"""The paper's form for a pool: SPD, then one dense convolution that starts as the mean of the window.

arXiv 2208.03641, section 3, puts SPD-Conv in the place of every pool. A mean is a convolution, so for an average pool
this is exact wherever PyTorch divides by the same number at every position; for a max pool it is an approximation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from spdify.blocks import SPDConv
from spdify.blocks.phases import Phases, scatter_taps, split_axis
from spdify.records import Claim

if TYPE_CHECKING:
    from torch import Tensor

    from spdify.records import Geometry, Site


def dense_block(site: Site, channels: int) -> SPDConv:
    """Make an `SPDConv` over all channels with the sizes of the pool."""
    axes, mode = _axes(site.geometry), _padding_mode(site)
    margin = {"same": _extent(site.geometry), "ceil": site.geometry.stride}.get(mode, ())
    return SPDConv(
        channels, channels, [axis.kernel for axis in axes], [axis.scale for axis in axes],
        [axis.padding for axis in axes], bias=False, margin=margin, padding_mode=mode,
    )  # fmt: skip


def dense_weights(site: Site, channels: int) -> dict[str, Tensor]:
    """Give each channel's window mean, or its sum over the pool's own divisor, in float64."""
    window = site.geometry
    divisor = window.divisor_override or math.prod(window.kernel)
    mean = torch.eye(channels, dtype=torch.float64, device="cpu") / divisor
    taps = mean.reshape(*mean.shape, *[1] * window.dims).repeat(1, 1, *window.kernel)
    return {"weight": scatter_taps(taps, _axes(window))}


def is_mean(site: Site) -> bool:
    """Whether the block is the pool: an average pool that divides by one number, at the edges too."""
    window = site.geometry
    if site.operator != "avg_pool":
        return False
    if window.divisor_override is not None or _padding_mode(site) == "ceil":
        return True
    # Where ceil_mode gives no window more, none reaches past the padding.
    past_padding = _axes(window) != _axes(window.model_copy(update={"ceil_mode": False}))
    return not past_padding and (window.count_include_pad or not any(window.padding))


def mean_claim(site: Site) -> Claim:
    """Say what an average pool keeps as SPD and one dense convolution."""
    if is_mean(site):
        words = "same gradient for the input; the window's weights, zero between channels, start to learn"
        return Claim(value="exact", training=words)
    words = "differs at the edges, where the pool divides by fewer positions; the window's weights start to learn"
    return Claim(value="approximate", training=words)


def last_block_repeats(window: Geometry) -> bool:
    """Whether an average pool's last window, cut short by the edge, has the mean of a block filled up with the edge.

    A block of at most two positions along each axis has one or all of them inside, and PyTorch divides by that number.
    """
    return (
        window.ceil_mode
        and window.kernel == window.stride
        and max(window.stride) <= 2  # noqa: PLR2004 - see above
        and not any(window.padding)
        and window.divisor_override is None
        and window.padding_mode != "same"
    )


def _padding_mode(site: Site) -> str:
    if site.geometry.padding_mode == "same":
        return "same"
    return "ceil" if site.operator == "avg_pool" and last_block_repeats(site.geometry) else "zeros"


def _extent(window: Geometry) -> tuple[int, ...]:
    """Positions from a window's first tap to its last."""
    return tuple(d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True))


def _axes(window: Geometry) -> list[Phases]:
    return [
        split_axis(k, s, p, d, ceil_mode=window.ceil_mode)
        for k, s, p, d in zip(window.kernel, window.stride, window.padding, window.dilation, strict=True)
    ]
