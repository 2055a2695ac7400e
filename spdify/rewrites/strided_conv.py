"""A strided convolution becomes an SPD-Conv that computes the same function (arXiv 2208.03641, section 3).

With weight W[o, c, u], stride s, padding p and dilation d, tap u reads position s·i + d·u - p. Writing
d·u - p = s·q + r makes it tap q of phase r: the SPD-Conv's weight is W scattered to those places and zero elsewhere
(`spdify.blocks.phases`). A 1×1 convolution may instead become SPD → depthwise (one-hot, picks its phase) → the same
1×1; the depthwise one may be a grouped one, which mixes the phases of a few channels once it learns.

Weight-standardised convolutions standardise the old layout first (`spdify.blocks.spd_std_conv`); of a conditionally
parameterised one every expert is scattered (`spdify.blocks.spd_cond_conv`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import Field

from spdify.blocks import (
    SPDCondConv,
    SPDConv,
    SPDFunctionalConv,
    SPDPointwiseConv,
    SPDStdConv,
    SPDStdPointwiseConv,
)  # fmt: skip
from spdify.blocks.phases import Phases, scatter_taps, split_axis
from spdify.blocks.spd_pointwise_conv import one_phase
from spdify.blocks.spd_std_conv import standardised
from spdify.records import MAX_ENTRIES, Claim, Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.conv_site import experts, gain_scale, is_standardised, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Shape, Site


class StridedConvParams(Record):
    """Parameters of `replace-strided-conv`.

    Attributes:
        kernel: `minimal`, the smallest window that holds the taps; `odd`, the smallest centred one of at least 3 (the
            paper's 3×3), along the axes with a stride.
        pointwise: For 1×1 convolutions: `separable`, a depthwise convolution over the phases before it; `grouped`, one
            that mixes the phases of `mixed` channels at a time; or `dense` like all others (s² times the weights). A
            depthwise 1×1 convolution, and one with weights per sample, is always `dense`.
        mixed: Channels that `grouped` mixes, as far as their number divides those that come in.
        standardisation: For weight-standardised convolutions: `keep` it, or `bake` the standardised weight into a plain
            SPD-Conv, which then learns without.
    """

    kernel: Literal["minimal", "odd"] = "minimal"
    pointwise: Literal["separable", "grouped", "dense"] = "separable"
    mixed: int = Field(default=8, ge=1, le=MAX_ENTRIES, strict=True)
    standardisation: Literal["keep", "bake"] = "keep"


class ReplaceStridedConv(Rewrite[StridedConvParams]):
    """Strided convolution → SPD-Conv, exact."""

    summary: ClassVar[str] = "a strided convolution becomes SPD-Conv with the same function (arXiv:2208.03641, 3)"
    operators: ClassVar[frozenset[Operator]] = frozenset({"conv"})
    params_type: ClassVar[type[Record]] = StridedConvParams

    def reads(self, site: Site) -> dict[str, Shape]:
        """Weight, bias and gain; of experts, each flat in a row; nothing for a functional call, which is given them."""
        if site.operation:
            return {}
        return tensor_shapes(site)

    def input_shapes(self, site: Site, spatial: Shape, *, batch: int) -> tuple[tuple[Shape, ...], ...]:
        """One trial; experts are mixed by a second input, a functional call is given weight and bias."""
        (trial,) = super().input_shapes(site, spatial, batch=batch)
        if site.operation:
            return ((*trial, *tensor_shapes(site).values()),)
        return ((*trial, (batch, experts(site))),) if experts(site) else (trial,)

    def forms(self, site: Site) -> dict[str, Self]:
        """Kernels `minimal` and `odd`; of a 1×1 convolution, all that `pointwise` may be."""
        pointwise = self._is_pointwise(site)
        names = ("separable", "grouped", "dense") if pointwise else ("minimal", "odd")
        field = "pointwise" if pointwise else "kernel"
        return {name: type(self)(self.params.model_copy(update={field: name})) for name in names}

    def _no_phase_weight(self, site: Site) -> Tensor:
        with torch.device("meta"):  # the layout is wanted, not a block
            like = self.build(site).get_parameter("phase_weight")
        return torch.zeros_like(like, device="cpu")

    def claim(self, site: Site) -> Claim:
        """Exact."""
        if is_standardised(site) and self.params.standardisation == "bake":
            words = (
                "same gradient for the input; the weights learn without standardisation, so training goes another way"
            )
            return Claim(value="exact", training=words)
        if self._keeps_standardisation(site) and not self._is_separable(site):
            extra = "the new weights beside the standardised ones"
        else:
            extra = "the one-hot phase weights" if self._is_separable(site) else "the zero taps"
        return Claim(
            value="exact", training=f"same gradients for the original weights and the input; {extra} start to learn too"
        )

    def build(self, site: Site) -> nn.Module:
        """Make an `SPDConv`, an `SPDPointwiseConv`, or what stands for a standardised or conditional convolution."""
        window, axes = site.geometry, self._axes(site)
        if site.operation:
            return SPDFunctionalConv(
                window.in_channels, window.out_channels, window.kernel, window.stride, window.padding, window.dilation,
                groups=window.groups,
            )  # fmt: skip
        scale, padding, kernel = ([getattr(a, name) for a in axes] for name in ("scale", "padding", "kernel"))
        ins, outs = window.in_channels, window.out_channels
        common: dict[str, Any] = {"groups": window.groups, "bias": window.bias}
        standard: dict[str, Any] = {"eps": site.constants.get("eps"), "gain_scale": gain_scale(site)}
        if self._is_separable(site):
            phase = [axis.taps[0][1] for axis in axes]
            common["mixed"] = self._mixed(site)
            if self._keeps_standardisation(site):
                return SPDStdPointwiseConv(ins, outs, scale, phase, padding, **common, **standard)
            return SPDPointwiseConv(ins, outs, scale, phase, padding, **common)
        if self._keeps_standardisation(site):
            return SPDStdConv(
                ins, outs, window.kernel, window.stride, window.padding, window.dilation, odd=self._is_odd(site),
                same=bool(self._margin(site)), **common, **standard,
            )  # fmt: skip
        if count := experts(site):
            return SPDCondConv(
                ins, outs, kernel, scale, padding, num_experts=count, extent=self._margin(site), **common
            )
        return SPDConv(
            ins, outs, kernel, scale, padding, margin=self._margin(site),
            padding_mode=window.padding_mode if self._margin(site) else "zeros", **common,
        )  # fmt: skip

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scatter the weight, or keep it and put a one-hot phase weight before it; the bias stays."""
        axes = self._axes(site)
        if site.operation:
            return {"phase_weight": self._no_phase_weight(site)}
        new = dict(old)
        if is_standardised(site) and not self._keeps_standardisation(site):
            gain = new.pop("gain", None)
            new["weight"] = standardised(old["weight"], gain, gain_scale(site) or 1.0, float(site.constants["eps"]))
        if self._is_separable(site):
            new["phase_weight"] = _picking(new["weight"], site, axes, self._mixed(site))
        elif self._keeps_standardisation(site):
            new["phase_weight"] = scatter_taps(old["weight"].detach(), axes).zero_()
        elif count := experts(site):
            window = site.geometry
            each = old["weight"].reshape(count * window.out_channels, -1, *window.kernel)
            new["weight"] = scatter_taps(each, axes).reshape(count, -1)
        else:
            new["weight"] = scatter_taps(new["weight"], axes)
        return new

    def _is_pointwise(self, site: Site) -> bool:
        """Whether the site is a 1×1 convolution that `pointwise` is for."""
        window = site.geometry
        plain = not (window.depthwise or experts(site) or site.operation or self._margin(site))
        return plain and all(k == 1 for k in window.kernel)

    def _is_separable(self, site: Site) -> bool:
        """Whether the site is a 1×1 convolution that keeps its weight and gets one over phases before it."""
        return self._is_pointwise(site) and self.params.pointwise != "dense"

    def _mixed(self, site: Site) -> int:
        """Channels whose phases are mixed before a 1×1 convolution."""
        wanted = self.params.mixed if self.params.pointwise == "grouped" else 1
        return math.gcd(wanted, site.geometry.in_channels)

    def _keeps_standardisation(self, site: Site) -> bool:
        return is_standardised(site) and self.params.standardisation == "keep"

    def _margin(self, site: Site) -> tuple[int, ...]:
        """Give what `SPDConv` takes for a margin: padding by another mode than zeros, before everything else."""
        window = site.geometry
        if window.padding_mode == "same":  # of one tap there is none
            extent = tuple(d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True))
            return extent if any(reach > 1 for reach in extent) else ()
        return window.padding if window.padding_mode != "zeros" and any(window.padding) else ()

    def _is_odd(self, site: Site) -> bool:
        return self.params.kernel == "odd" and any(k > 1 for k in site.geometry.kernel)

    def _axes(self, site: Site) -> list[Phases]:
        window = site.geometry
        padding = (0,) * window.dims if self._margin(site) else window.padding
        return [
            split_axis(k, s, p, d, odd=self._is_odd(site))
            for k, s, p, d in zip(window.kernel, window.stride, padding, window.dilation, strict=True)
        ]


def _picking(weight: Tensor, site: Site, axes: list[Phases], mixed: int) -> Tensor:
    """Give the one-hot phase weight that passes the phase that a 1×1 convolution reads."""
    scale = [axis.scale for axis in axes]
    shape = (site.geometry.in_channels, mixed * math.prod(scale), *(1 for _ in axes))
    return one_phase(weight.new_empty(shape), scale, [axis.taps[0][1] for axis in axes])
