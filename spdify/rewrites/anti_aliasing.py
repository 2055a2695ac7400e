"""Strided convolutions and pools run with stride 1, then a blur drops positions: BlurPool (arXiv 1904.11486, 3.2).

A convolution becomes convolution → (norm →) activation → blur, a max pool the pool with stride 1 → blur, an average
pool a blur: all with the sizes of before. Where no activation of its own follows a convolution, the blur comes directly
behind it; a convolution of one tap and its blur may change places, and so the blur comes first, where it is cheaper.
The weights are those of before, the function is another, smoother one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from spdify.blocks import BlurredActivation, BlurredAvgPool, BlurredConv, BlurredMaxPool, UnstridedConv
from spdify.blocks.blurring import blur, centred_blur
from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.conv_site import plain_arguments, refuse_other_weights, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Shape, Site


class AntiAliasParams(Record):
    """Parameters of `anti-alias`.

    Attributes:
        filter: Taps of the binomial filter along each axis that is stepped over.
        pad: Padding of the map that is blurred. `reflect` needs maps that are larger than it.
        position: Of a convolution's blur: behind the `activation` that follows it, or directly behind the `conv`.
    """

    filter: Literal[3, 5] = 3
    pad: Literal["replicate", "reflect", "zeros"] = "replicate"
    position: Literal["activation", "conv"] = "activation"


class AntiAlias(Rewrite[AntiAliasParams]):
    """Strided operator → the same with stride 1, and a blur; approximate, with the weights of before."""

    summary: ClassVar[str] = (
        "a strided convolution or pool runs with stride 1, and a blur behind it drops positions "
        "(BlurPool, arXiv:1904.11486, 3.2)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool", "conv", "max_pool"})
    params_type: ClassVar[type[Record]] = AntiAliasParams
    form_name: ClassVar[str] = "blur"

    def check(self, site: Site) -> str | None:
        """Refuse weights that are no plain ones, functional convolutions, and maps too small to be reflected."""
        if (reason := super().check(site) or refuse_other_weights(site)) is not None:
            return reason
        reach = self.params.filter // 2
        sizes = [size for call in site.calls for size in call.output[-site.geometry.dims :]]
        # Of m outputs, the map that is blurred has at least s·(m - 1) + 1 positions.
        if self.params.pad == "reflect" and min(sizes) <= reach:
            return f'a map that gives {min(sizes)} positions is too small to be reflected (set pad = "replicate")'
        return None

    def claim(self, site: Site) -> Claim:
        """Approximate."""
        if site.operator == "conv":
            words = "the blur has no weights; the norm that follows takes its statistics from all positions"
            return Claim(value="approximate", training=f"the convolution goes on from its weights; {words}")
        return Claim(value="approximate", training="the blur has no weights; gradients reach all positions")

    def activation(self, site: Site) -> str:
        """A convolution's, as far as its blur does not come first."""
        behind = site.operator == "conv" and self.params.position == "activation"
        return "held" if behind and not self._conv(site).is_pointwise else ""

    def around(self, site: Site, activation: nn.Module) -> BlurredActivation:
        """Blur what it puts out."""
        return BlurredActivation(
            activation, site.geometry.stride, taps=self.params.filter, blur_padding=self.params.pad
        )

    def without_activation(self) -> tuple[Self, str]:
        """Blur directly behind the convolution."""
        params = self.params.model_copy(update={"position": "conv"})
        return type(self)(params), "the blur comes directly behind the convolution"

    def completed(self, site: Site, y: Tensor) -> Tensor:
        """Blur what comes to the activation."""
        if not self.activation(site):
            return y
        return blur(y, centred_blur(site.geometry.stride, self.params.filter, self.params.pad))

    def reads(self, site: Site) -> dict[str, Shape]:
        """Weight and bias of a convolution."""
        return tensor_shapes(site) if site.operator == "conv" else {}

    def build(self, site: Site) -> nn.Module:
        """Make the block of the site's operator."""
        if site.operator == "conv":
            return self._conv(site)
        window = site.geometry
        named: dict[str, Any] = {
            "ceil_mode": window.ceil_mode, "same": window.padding_mode == "same", "dims": window.dims,
            "taps": self.params.filter, "blur_padding": self.params.pad,
        }  # fmt: skip
        kind = BlurredMaxPool if site.operator == "max_pool" else BlurredAvgPool
        return kind(window.kernel, window.stride, window.padding, window.dilation, **named)

    def _conv(self, site: Site) -> UnstridedConv:
        arguments, named = plain_arguments(site)
        block = UnstridedConv(*arguments, **named)
        if self.params.position == "activation" and not block.is_pointwise:
            return block
        return BlurredConv(*arguments, **named, taps=self.params.filter, blur_padding=self.params.pad)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - the same for all
        """Pass all on as it was."""
        return dict(old)
