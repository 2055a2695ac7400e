"""A strided convolution runs with stride 1, then space-to-depth: the order of the code released with arXiv 2208.03641.

Phase 0 of the output with stride 1 is the strided output, so the function stays as long as what follows reads that
phase alone at the start (`spdify.blocks.conv_spd`). Either s² times the channels go on, and the layers that read them
get zeros for the new ones; or a 1×1 convolution over the phases, one-hot at phase 0, brings them back at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from spdify.blocks import ConvSPD, StdConvSPD
from spdify.blocks.conv_spd import first_phase
from spdify.records import Claim, Layout, Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.conv_site import experts, gain_scale, is_standardised, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Shape, Site


class UnstrideConvParams(Record):
    """Parameters of `unstride-conv`.

    Attributes:
        channels: `carry` lets s² times the channels go on to the next layers, as in the released networks; `reduce`
            brings them back by a 1×1 convolution behind each.
        norms: Of channels that are carried: `each` phase gets a batch norm's weight, bias and statistics of its own, as
            in ResNet50-SPD, or those of a channel are `shared`, as in YOLOv5-SPD. Shared statistics count positions
            that the strided convolution left out.
    """

    channels: Literal["carry", "reduce"] = "carry"
    norms: Literal["each", "shared"] = "each"


class UnstrideConv(Rewrite[UnstrideConvParams]):
    """Strided convolution → the same with stride 1 → space-to-depth, exact."""

    summary: ClassVar[str] = (
        "a strided convolution runs with stride 1, then space-to-depth, and the next layers read all phases "
        "(the code released with arXiv:2208.03641)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"conv"})
    params_type: ClassVar[type[Record]] = UnstrideConvParams

    def check(self, site: Site) -> str | None:
        """Refuse functional calls and weights per sample."""
        if (reason := super().check(site)) is not None:
            return reason
        if site.operation:
            return "a functional convolution has no module to change"
        return (
            "its weight differs from sample to sample, and stride 1 is not offered for that" if experts(site) else None
        )

    def leaves(self, site: Site) -> Layout | None:
        """All phases of each channel, the first of which is the old channel; None where they are brought back."""
        if self.params.channels == "reduce":
            return None
        runs = ((site.geometry.out_channels, math.prod(site.geometry.stride)),)
        return Layout(runs=runs, how="select", norms=self.params.norms)

    def reduced(self) -> Self:
        """Give the same with the channels brought back."""
        return type(self)(self.params.model_copy(update={"channels": "reduce"}))

    def reads(self, site: Site) -> dict[str, Shape]:
        """Weight, bias and gain."""
        return tensor_shapes(site)

    def claim(self, site: Site) -> Claim:
        """Exact."""
        layout = self.leaves(site)
        if layout is not None and layout.norms == "shared":
            words = "the norm behind takes its statistics from all phases, of which the original's sees the first"
            return Claim(value="exact", training=f"same gradients with the statistics held; in training {words}")
        carried = layout is not None
        words = (
            "what the next layers read of the other phases starts at zero and learns, so their statistics count too"
            if carried
            else "the reduction's weights, one-hot at phase 0, start to learn too"
        )
        return Claim(
            value="exact", training=f"same gradients for the original weights and the input at the start; {words}"
        )

    def build(self, site: Site) -> ConvSPD:
        """Make a `ConvSPD`, or a `StdConvSPD` for a weight-standardised convolution."""
        window = site.geometry
        arguments = (
            window.in_channels, window.out_channels, window.kernel, window.stride, window.padding, window.dilation
        )  # fmt: skip
        common: dict[str, Any] = {
            "groups": window.groups, "bias": window.bias, "padding_mode": window.padding_mode,
            "reduce": self.params.channels == "reduce",
        }  # fmt: skip
        if is_standardised(site):
            return StdConvSPD(*arguments, **common, gain_scale=gain_scale(site), eps=float(site.constants["eps"]))
        return ConvSPD(*arguments, **common)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pass all on as it was; a reduction takes phase 0."""
        new, window = dict(old), site.geometry
        if self.params.channels == "reduce":
            new["reduction_weight"] = first_phase(window.out_channels, window.groups, window.stride)
        return new
