"""A convolution becomes deformable: each tap reads at an offset of its own (arXiv 1703.06211, 1811.11168).

y(p) = Σ_k w_k · x(p + p_k + Δ_k) · 2σ(m_k): with offsets Δ and masks m that start at zero each tap reads its own
position, by a bilinear interpolation whose other weights are zero, times 2σ(0) = 1. The weight stays as it was. The
factor 2 stays too, so a mask may double a tap, where the original's are at most 1. The sampling is torchvision's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from spdify.blocks import DeformableConv2d
from spdify.records import MAX_ENTRIES, Claim, Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.conv_site import experts, is_standardised, tensor_shapes
from spdify.rewrites.inserted import is_chosen
from spdify.rulebook.form import Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Shape, Site

IMAGE_AXES = 2


class DeformConvParams(Record):
    """Parameters of `deform-conv`.

    Attributes:
        stages: Which stages, from 0: `-1` the last one, `1:` all but the first, `:` all and what belongs to none.
        modulated: Whether each tap has a mask too (version 2), or an offset alone (version 1).
        offset_groups: Parts of the input's channels that are read at offsets of their own, as far as their number
            divides the channels.
    """

    stages: Position = "-1"
    modulated: bool = Field(default=True, strict=True)
    offset_groups: int = Field(default=1, ge=1, le=MAX_ENTRIES, strict=True)


class DeformConv(Rewrite[DeformConvParams]):
    """Convolution → deformable convolution, exact."""

    summary: ClassVar[str] = (
        "a convolution reads each tap at an offset of its own, weighed by a mask, which start at zero "
        "(DCN, arXiv:1703.06211 and arXiv:1811.11168)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"conv"})
    params_type: ClassVar[type[Record]] = DeformConvParams
    form_name: ClassVar[str] = "deformable"

    def keep(self, site: Site) -> str | None:
        """Leave what the parameters do not name, and windows of one tap, as the papers do."""
        if not is_chosen(site, self.params.stages):
            return f"stages = {self.params.stages}"
        if all(taps == 1 for taps in site.geometry.kernel):
            return "a window of one tap"
        return None

    def check(self, site: Site) -> str | None:
        """Refuse all but plain two-dimensional convolutions that pad zeros, the same number on either side."""
        if (reason := super().check(site)) is not None:
            return reason
        window = site.geometry
        reasons = {
            "a functional convolution has no module to change": bool(site.operation),
            f"it is for two-dimensional convolutions, this one has {window.dims} axes": window.dims != IMAGE_AXES,
            "its weight is standardised, which deformable ones are not offered for": is_standardised(site),
            "its weight differs from sample to sample, which deformable ones are not offered for": bool(experts(site)),
            f"its padding is {window.padding_mode}: what is sampled outside is zero": window.padding_mode != "zeros",
            "it pads more on one side than on the other": not _pads_alike(site),
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def reads(self, site: Site) -> dict[str, Shape]:
        """Weight and bias."""
        return tensor_shapes(site)

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact."""
        new = "offsets and masks" if self.params.modulated else "offsets"
        words = f"same gradients for the original weights and the input at the start; {new} start to learn too"
        return Claim(value="exact", training=words)

    def build(self, site: Site) -> DeformableConv2d:
        """Make a `DeformableConv2d`."""
        window = site.geometry
        return DeformableConv2d(
            window.in_channels, window.out_channels, window.kernel, window.stride, window.padding, window.dilation,
            groups=window.groups, bias=window.bias, modulated=self.params.modulated,
            offset_groups=math.gcd(self.params.offset_groups, window.in_channels),
        )  # fmt: skip

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pass weight and bias on as they were; all else is zero."""
        with torch.device("meta"):  # names and shapes are wanted, not a block
            state = self.build(site).state_dict()
        return {name: old[name] if name in old else torch.zeros(t.shape) for name, t in state.items()}


def _pads_alike(site: Site) -> bool:
    """Whether its maps have the size that its padding gives: `same` adds one more behind for an even window."""
    window = site.geometry
    sizes = ((call.input[-window.dims :], call.output[-window.dims :]) for call in site.calls)
    return all(tuple(window.output_size(n, axis) for axis, n in enumerate(given)) == came for given, came in sizes)
