"""A blur pool becomes SPD → depthwise convolution: it is one already, with a fixed filter (arXiv 1904.11486).

The filter is that of `timm.layers.BlurPool2d`, the outer product of (0.5 + 0.5·x)ⁿ⁻¹'s coefficients with itself. The
module keeps it in a buffer that no state dict holds, so it is computed here; the proof of a site compares with the
buffer that is there. Its padding, reflected or zeros, comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from spdify.blocks import SPDConv
from spdify.blocks.blurring import binomial_filter
from spdify.blocks.phases import Phases, scatter_taps, split_axis
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import NoParams
from spdify.rewrites.pool import ReplacePool

if TYPE_CHECKING:
    from torch import Tensor

    from spdify.records import Geometry, Site


class ReplaceBlurPool(ReplacePool[NoParams]):
    """Blur pool → SPD and depthwise convolution, exact."""

    summary: ClassVar[str] = (
        "a blur pool (arXiv:1904.11486) becomes SPD and a depthwise convolution with the same function, "
        "as an average pool does (arXiv:2208.03641, 3)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"blur_pool"})
    params_type: ClassVar[type[Record]] = NoParams
    form_name: ClassVar[str] = "depthwise"

    def check(self, site: Site) -> str | None:
        """Refuse a filter that is not square: there is no such binomial one."""
        if (reason := super().check(site)) is not None:
            return reason
        kernel = site.geometry.kernel
        return f"a blur filter of {kernel} taps, not a square one" if len(set(kernel)) != 1 else None

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact."""
        return Claim(value="exact", training="same gradient for the input; the blur's weights start to learn")

    def block(self, site: Site, channels: int) -> SPDConv:
        """Make a depthwise `SPDConv`."""
        window, axes = site.geometry, _axes(site.geometry)
        margin = _margin(window)
        return SPDConv(
            channels, channels, [axis.kernel for axis in axes], [axis.scale for axis in axes],
            [axis.padding for axis in axes], groups=channels, bias=False, margin=margin,
            padding_mode=window.padding_mode if margin else "zeros",
        )  # fmt: skip

    def block_weights(self, site: Site, channels: int) -> dict[str, Tensor]:
        """Give the filter once per channel."""
        blur = binomial_filter(site.geometry.kernel, torch.empty(0, dtype=torch.float64, device="cpu"))
        blur = blur.expand(channels, 1, -1, -1)
        return {"weight": scatter_taps(blur, _axes(site.geometry))}


def _margin(window: Geometry) -> tuple[int, ...]:
    """Positions that must be padded by another mode than zeros, before everything else."""
    return window.padding if window.padding_mode != "zeros" and any(window.padding) else ()


def _axes(window: Geometry) -> list[Phases]:
    padding = (0,) * window.dims if _margin(window) else window.padding
    return [split_axis(k, s, p, 1) for k, s, p in zip(window.kernel, window.stride, padding, strict=True)]
