"""What the rewrites share that put a block beside what is there: behind a stage, before the network.

Nothing is replaced, so nothing is carried over: the block's weights are drawn, the same each time, and those that would
change the function at the start are what the block's constructor makes them.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from spdify.records import Claim, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.drawing import drawn_weights
from spdify.rulebook.form import Position
from spdify.rulebook.matching import stands_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Operator, Site


class PlaceParams(Record):
    """Where blocks are put.

    Attributes:
        position: Behind each `stage` (all that runs at one resolution), or behind each `block`.
        stages: Which stages, from 0: `-1` the last one, `1:` all but the first, `:` all.
    """

    position: Literal["stage", "block"] = "stage"
    stages: Position = ":"


def is_chosen(site: Site, stages: str) -> bool:
    """Whether a site's stage is one of those that a parameter names; a stem belongs to none."""
    if site.stage is None:
        return stages == ":"
    return stands_at(stages, site.stage, site.stages)


PlaceT = TypeVar("PlaceT", bound=PlaceParams)


class InsertBlock(Rewrite[PlaceT]):
    """A block at a place where there was none, which starts as the identity."""

    operators: ClassVar[frozenset[Operator]] = frozenset({"stage_end", "block_end"})
    form_name: ClassVar[str] = "block"

    def keep(self, site: Site) -> str | None:
        """Leave the ends that the parameters do not name."""
        if site.operator != f"{self.params.position}_end" or not is_chosen(site, self.params.stages):
            return f"position = {self.params.position}, stages = {self.params.stages}"
        return None

    @abstractmethod
    def block(self, channels: int) -> nn.Module:
        """Make the block for maps of this many channels, starting as the identity."""

    def claim(self, site: Site) -> Claim:  # noqa: ARG002 - the same for all
        """Exact."""
        words = (
            "same gradients for the original weights at the start; the block's last layer learns first, then the rest"
        )
        return Claim(value="exact", training=words)

    def build(self, site: Site) -> nn.Module:
        """Make the block."""
        return self.block(site.geometry.in_channels)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is kept
        """Draw the weights of a fresh block, the same each time and others at every place."""
        return drawn_weights(lambda: self.build(site), zlib.crc32(site.name.encode()))
