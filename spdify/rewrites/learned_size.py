"""What the rewrites share whose blocks learn their size: one number for all sites at a level of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from spdify.records import Operator, Record
from spdify.rewrites.base import Rewrite
from spdify.rewrites.conv_site import refuse_other_weights, tensor_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from spdify.records import Geometry, Shape, Site

TRIED = range(32, 36)  # sizes that leave every remainder


class LearnedSizeParams(Record):
    """Parameters that such rewrites have.

    Attributes:
        leader: Path of the block whose number is read. It is found when sites are planned, whatever a rule says.
    """

    leader: str = ""


SizeT = TypeVar("SizeT", bound=LearnedSizeParams)


class LearnSize(Rewrite[SizeT]):
    """A strided operator whose output size is learned, from that of stride 2 on."""

    operators: ClassVar[frozenset[Operator]] = frozenset({"avg_pool", "conv", "max_pool"})
    form_name: ClassVar[str] = "learned"

    def check(self, site: Site) -> str | None:
        """Refuse weights that are no plain ones, functional convolutions, and sizes that are no halves."""
        if (reason := super().check(site) or refuse_other_weights(site)) is not None:
            return reason
        if any(step != 2 for step in site.geometry.stride):  # noqa: PLR2004 - from one half on
            return f"stride 2 along all axes is what is learned from, this is {site.geometry}"
        if site.operator != "conv" and halves(site.geometry) is None:
            return f"{site.geometry} gives more or fewer positions than half of its input's"
        return None

    def resizes(self) -> bool:
        """Once it has learned."""
        return True

    def level(self, site: Site) -> str:
        """All that is called with maps of the same size first: what it puts out may meet."""
        return f"{site.calls[0].input[-site.geometry.dims :]}"

    def led_by(self, path: str) -> Self:
        """Give the rewrite whose block follows that of `path`."""
        return type(self)(self.params.model_copy(update={"leader": path}))

    def leader(self) -> str:
        """As it was planned."""
        return self.params.leader

    @property
    def leads(self) -> bool:
        """Whether its block has the parameter."""
        return not self.params.leader

    def reads(self, site: Site) -> dict[str, Shape]:
        """Weight and bias of a convolution."""
        return tensor_shapes(site) if site.operator == "conv" else {}

    def with_size(self, start: Tensor, old: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Give the block's tensors: those of before, and its number where it leads."""
        return old | ({name: start} if self.leads else {})


def halves(window: Geometry) -> tuple[bool, ...] | None:
    """Say, by axis, whether half of an odd size is rounded up; None where the output has not half of the positions."""
    found = []
    for axis in range(window.dims):
        sizes = [window.output_size(size, axis) for size in TRIED]
        if sizes not in ([-(-size // 2) for size in TRIED], [size // 2 for size in TRIED]):
            return None
        found.append(sizes[1] * 2 > TRIED[1])
    return tuple(found)
