"""A pool goes: what comes after it sees larger maps (the networks released with arXiv 2208.03641 for small images).

ImageNet's networks halve the size twice before their first stage, which leaves nothing of an image of 32 positions.
The released networks for CIFAR-10 and Tiny ImageNet have no pool behind their stem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from spdify.records import Claim, Operator, Record
from spdify.rewrites.base import NoParams, Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spdify.records import Site


class RemovePool(Rewrite[NoParams]):
    """Pool → nothing, reinitialised."""

    summary: ClassVar[str] = (
        "a pool is taken out and all that follows sees larger maps (the networks released with arXiv:2208.03641)"
    )
    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool", "blur_pool", "max_pool"})
    params_type: ClassVar[type[Record]] = NoParams

    def claim(self, site: Site) -> Claim:
        """Reinitialised: no weight changes, but what the weights were trained for does."""
        times = "x".join(str(s) for s in site.geometry.stride)
        words = f"all maps after it are {times} times larger, at another scale than the weights were trained for"
        return Claim(value="reinitialised", training=words)

    def resizes(self) -> bool:
        """All that follows gets larger maps."""
        return True

    def build(self, site: Site) -> nn.Identity:  # noqa: ARG002 - the same for all
        """Make what gives its input back."""
        return nn.Identity()

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - it has none
        """Give nothing."""
        return {}
