"""What the rewrites share that put a block beside what is there: behind a stage, before the network.

Nothing is replaced, so nothing is carried over: the block's weights are drawn, the same each time, and those that would
change the function at the start are what the block's constructor makes them.
"""

from __future__ import annotations

import re
import zlib
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from spdify.records import Claim, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.drawing import drawn_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Operator, Site


_RANGE = re.compile(r"-?\d{1,4}|(-?\d{1,4})?:(-?\d{1,4})?", re.ASCII)


def _range(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not (isinstance(text, str) and _RANGE.fullmatch(text)):
        raise PydanticCustomError("expected", "a stage or a range of stages from 0, such as -1, '1:' or ':2'")
    return text


Stages: TypeAlias = Annotated[str, BeforeValidator(_range)]


class PlaceParams(Record):
    """Where blocks are put.

    Attributes:
        position: Behind each `stage` (all that runs at one resolution), or behind each `block`.
        stages: Which stages, from 0: `-1` the last one, `1:` all but the first, `:` all.
    """

    position: Literal["stage", "block"] = "stage"
    stages: Stages = ":"


def is_chosen(site: Site, stages: str) -> bool:
    """Whether a site's stage is one of those that a parameter names; a stem belongs to none."""
    if site.stage is None:
        return stages == ":"
    if ":" not in stages:
        return site.stage == int(stages) % max(site.stages, 1)
    start, stop = (int(end) if end else None for end in stages.split(":"))
    return site.stage in range(*slice(start, stop).indices(site.stages))


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
