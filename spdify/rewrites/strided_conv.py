"""A strided convolution becomes an SPD-Conv that computes the same function (arXiv 2208.03641, section 3).

With weight W[o, c, u], stride s, padding p and dilation d, tap u reads position s·i + d·u - p. Writing
d·u - p = s·q + r makes it tap q of phase r: the SPD-Conv's weight is W scattered to those places and zero elsewhere
(`spdify.blocks.phases`). A 1×1 convolution may instead become SPD → depthwise (one-hot, picks its phase) → the same
1×1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from spdify.blocks import SPDConv, SPDFunctionalConv, SPDPointwiseConv
from spdify.blocks.phases import Phases, scatter_taps, split_axis
from spdify.blocks.spd_pointwise_conv import one_phase
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Site


class StridedConvParams(Record):
    """Parameters of `replace-strided-conv`.

    Attributes:
        kernel: `minimal`, the smallest window that holds the taps; `odd`, the smallest centred one of at least 3 (the
            paper's 3×3), along the axes with a stride.
        pointwise: For 1×1 convolutions: `separable`, or `dense` like all others (s² times the weights). A depthwise
            1×1 convolution is always `dense`, which is the smaller there.
    """

    kernel: Literal["minimal", "odd"] = "minimal"
    pointwise: Literal["separable", "dense"] = "separable"


class ReplaceStridedConv(Rewrite[StridedConvParams]):
    """Strided convolution → SPD-Conv, exact."""

    summary: ClassVar[str] = "a strided convolution becomes SPD-Conv with the same function (arXiv:2208.03641, 3)"
    operators: ClassVar[frozenset[Operator]] = frozenset({"conv"})
    params_type: ClassVar[type[Record]] = StridedConvParams

    def _is_separable(self, site: Site) -> bool:
        """Whether the site is a 1×1 convolution that keeps its weight and gets a depthwise part before it."""
        window = site.geometry
        pointwise = all(k == 1 for k in window.kernel) and not window.depthwise and not site.operation
        return pointwise and self.params.pointwise == "separable" and not self._margin(site)

    def _margin(self, site: Site) -> tuple[int, ...]:
        """Positions that must be padded by another mode than zeros, before everything else."""
        window = site.geometry
        return window.padding if window.padding_mode != "zeros" and any(window.padding) else ()

    def _axes(self, site: Site) -> list[Phases]:
        window = site.geometry
        padding = (0,) * window.dims if self._margin(site) else window.padding
        odd = self.params.kernel == "odd" and any(k > 1 for k in window.kernel)
        return [
            split_axis(k, s, p, d, odd=odd)
            for k, s, p, d in zip(window.kernel, window.stride, padding, window.dilation, strict=True)
        ]

    def _no_phase_weight(self, site: Site) -> Tensor:
        with torch.device("meta"):  # the layout is wanted, not a block
            like = self.build(site).get_parameter("phase_weight")
        return torch.zeros_like(like, device="cpu")

    def claim(self, site: Site) -> Claim:
        """Exact."""
        extra = "the one-hot phase weights" if self._is_separable(site) else "the zero taps"
        return Claim(
            value="exact", training=f"same gradients for the original weights and the input; {extra} start to learn too"
        )

    def build(self, site: Site) -> nn.Module:
        """Make an `SPDConv`, or an `SPDPointwiseConv`."""
        window, axes = site.geometry, self._axes(site)
        if site.operation:
            return SPDFunctionalConv(
                window.in_channels, window.out_channels, window.kernel, window.stride, window.padding, window.dilation,
                groups=window.groups,
            )  # fmt: skip
        scale, padding = [axis.scale for axis in axes], [axis.padding for axis in axes]
        channels = (window.in_channels, window.out_channels)
        if self._is_separable(site):
            phase = [axis.taps[0][1] for axis in axes]
            return SPDPointwiseConv(*channels, scale, phase, padding, groups=window.groups, bias=window.bias)
        return SPDConv(
            *channels, [axis.kernel for axis in axes], scale, padding, groups=window.groups, bias=window.bias,
            margin=self._margin(site), padding_mode=window.padding_mode if self._margin(site) else "zeros",
        )  # fmt: skip

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scatter the weight, or keep it and put a one-hot phase weight before it; the bias stays."""
        axes = self._axes(site)
        if site.operation:
            return {"phase_weight": self._no_phase_weight(site)}
        new = dict(old)
        if self._is_separable(site):
            phases = old["weight"].new_empty(site.geometry.in_channels, 1, *(1 for _ in axes))
            scale = [axis.scale for axis in axes]
            for s in scale:
                phases = phases.repeat_interleave(s, dim=1)
            new["phase_weight"] = one_phase(phases, scale, [axis.taps[0][1] for axis in axes])
        else:
            new["weight"] = scatter_taps(old["weight"], axes)
        return new
