"""Atrous spatial pyramid pooling behind stages or blocks (arXiv 1706.05587): a branch that starts silent.

x + P·ASPP(x), with a 1x1 convolution P of zero, is x in every precision. ASPP is torchvision's without its dropout,
whose random numbers would shift those of the layers behind it.

A 3x3 window of rate r spans 2r + 1 positions. The paper's rates, 6, 12 and 18, are for maps of 33 x 33: the largest
window just spans one. On a 7 x 7 map they would read next to nothing but padding; 1, 2 and 3 span it likewise.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from spdify.blocks import AtrousPyramid
from spdify.records import MAX_ENTRIES, Claim, Record, Site
from spdify.rewrites.inserted import InsertBlock, PlaceParams
from spdify.rulebook.form import Position

_RATES = re.compile(r"[1-9]\d{0,2}(\s*,\s*[1-9]\d{0,2}){2,15}", re.ASCII)
SHARE = 8  # channels of the map for each one of a branch: 256 of 2048 in the paper


def _rates(value: object) -> object:
    if not (isinstance(value, str) and _RATES.fullmatch(value.strip())):
        raise PydanticCustomError("expected", "three to sixteen rates from 1 on, such as '6,12,18'")
    return ",".join(rate.strip() for rate in value.split(","))


class AtrousPyramidParams(PlaceParams):
    """Parameters of `insert-aspp`.

    Attributes:
        position: As in `PlaceParams`.
        stages: Likewise; the last one, where the paper has it.
        rates: Dilations of the 3x3 convolutions, three or more: `1,2,3` for maps of 7 x 7, `6,12,18` for 33 x 33.
        channels: Of each branch; 0 for an eighth of the map's.
    """

    stages: Position = "-1"
    rates: Annotated[str, BeforeValidator(_rates)] = "1,2,3"
    channels: int = Field(default=0, ge=0, le=MAX_ENTRIES, strict=True)


class InsertAtrousPyramid(InsertBlock[AtrousPyramidParams]):
    """ASPP behind a stage or block, exact."""

    summary: ClassVar[str] = (
        "dilated convolutions side by side (ASPP) come behind a stage or block, as a branch that starts silent "
        "(arXiv:1706.05587, 3.3)"
    )
    params_type: ClassVar[type[Record]] = AtrousPyramidParams

    def claim(self, site: Site) -> Claim:
        """Exact; training asks for batches."""
        claim = super().claim(site)
        words = f"{claim.training}; batches of two or more, as the mean over the map is normed over the batch"
        return claim.model_copy(update={"training": words})

    def block(self, channels: int) -> AtrousPyramid:
        """Make an `AtrousPyramid`."""
        rates = tuple(int(rate) for rate in self.params.rates.split(","))
        return AtrousPyramid(channels, rates=rates, width=self.params.channels or max(channels // SHARE, 1))
