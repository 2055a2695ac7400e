"""A strided stem becomes SPD → a small convolution that starts anew: the stem of the networks for small images.

The networks released with arXiv 2208.03641 for CIFAR-10 and Tiny ImageNet begin with space-to-depth and a 1×1
convolution (Focus) in the place of ImageNet's 7×7 convolution with stride 2. That is another function, so its weights
are drawn and have to be trained. The output has the sizes of the old stem for inputs of every size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from spdify.blocks import SPDConv
from spdify.blocks.phases import split_axis
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import Rewrite, odd
from spdify.rewrites.conv_site import experts, is_standardised
from spdify.rewrites.drawing import drawn_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Geometry, Site

#: The weights must be the same each time that they are asked for.
SEED = 0


class StemParams(Record):
    """Parameters of `replace-stem`.

    Attributes:
        kernel: Taps of the convolution after space-to-depth, along every axis; odd.
        activation: What the activation behind the stem becomes; `keep` leaves it.
    """

    kernel: Annotated[int, Field(ge=1, strict=True), AfterValidator(odd)] = 1
    activation: Literal["keep", "silu", "relu"] = "keep"


class ReplaceStem(Rewrite[StemParams]):
    """Strided convolution → SPD and a small convolution with weights of its own, reinitialised."""

    summary: ClassVar[str] = (
        "a strided convolution becomes SPD and a small convolution with random weights: the stem for small images "
        "(the networks released with arXiv:2208.03641)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"conv"})
    params_type: ClassVar[type[Record]] = StemParams

    def check(self, site: Site) -> str | None:
        """Refuse functional calls, weights that are no plain ones, and windows that do not give one output a block."""
        if (reason := super().check(site)) is not None:
            return reason
        if site.operation:
            return "a functional convolution has no module to change"
        if experts(site) or is_standardised(site):
            return f"a stem of plain weights cannot stand for a {site.type_name}"
        window = site.geometry
        if any(not -s <= excess <= -1 for excess, s in zip(_excess(window), window.stride, strict=True)):
            return f"{window} does not give one output per block of {window.stride} positions"
        return None

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Reinitialised."""
        return Claim(
            value="reinitialised", training="the stem has another window and random weights: it has to be trained"
        )

    def activation(self, site: Site) -> str:  # noqa: ARG002 - the same for all
        """As the parameter says."""
        return "" if self.params.activation == "keep" else self.params.activation

    def build(self, site: Site) -> SPDConv:
        """Make an `SPDConv` with the sizes of the old stem."""
        window, kernel = site.geometry, self.params.kernel
        low = [kernel // 2 * s for s in window.stride]
        high = [
            excess - below + kernel * s for excess, below, s in zip(_excess(window), low, window.stride, strict=True)
        ]
        return SPDConv(
            window.in_channels, window.out_channels, [kernel] * window.dims, window.stride,
            list(zip(low, high, strict=True)), groups=window.groups, bias=window.bias,
        )  # fmt: skip

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is kept
        """Draw the weights of a fresh block, the same each time."""
        return drawn_weights(lambda: self.build(site), SEED)


def _excess(window: Geometry) -> list[int]:
    """Give e of the output size floor((n + e) / s) + 1 along each axis; same padding gives ceil(n / s)."""
    if window.padding_mode == "same":
        return [-1] * window.dims
    numbers = zip(window.kernel, window.stride, window.padding, window.dilation, strict=True)
    return [split_axis(*axis).excess for axis in numbers]
