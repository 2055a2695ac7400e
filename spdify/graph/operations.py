"""One operator as either eye sees it, and the predicate that says whether it is downsampling.

Both eyes (the torch.fx trace and the census of a real forward pass) describe what they see as an `Operation`; `judge`
alone says what becomes a site. So a disagreement between the eyes is one about what runs, not about what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from spdify.graph.calls import CallPlace
    from spdify.records import Call, Geometry, Shape

SeenOperator: TypeAlias = Literal["conv", "max_pool", "avg_pool", "blur_pool", "slice", "adaptive_pool"]

SITE = ""


@dataclass(frozen=True)
class Operation:
    """An operator that may shrink its input.

    Attributes:
        owner: Path of the innermost module that runs it (the module itself when it is a called convolution or pool).
        operator: What it computes.
        type_name: Class of the called module, or the function's name.
        called: Whether a module of its own stands for it.
        geometry: Its window; for a slice, kernel 1 with the steps as stride.
        call: Shapes, channels first.
        lossless: Whether other operations keep what this one drops (slices of all phases).
        inside: Path of the composite leaf that hides it from the whole trace.
        macs: Multiply-accumulate operations of this call (known to the census only).
        place: Of a functional call, the expression that makes it (known to the census only).
        obstacle: Why that expression cannot be edited.
        axes: Of a slice, the axes that are stepped over.
        starts: Of a slice, the first position along each.
        rank: Of a slice, the number of axes of its tensor.
    """

    owner: str
    operator: SeenOperator
    type_name: str
    called: bool
    geometry: Geometry
    call: Call
    lossless: bool = False
    inside: str = ""
    macs: int = 0
    place: CallPlace | None = None
    obstacle: str = ""
    axes: Shape = ()
    starts: Shape = ()
    rank: int = 0

    @property
    def name(self) -> str:
        """What a block would take the place of: a module, or an expression of its owner."""
        return f"{self.owner}#{self.place.operation}" if self.place is not None and not self.called else self.owner

    @property
    def key(self) -> tuple[object, ...]:
        """What both eyes must agree on: owner, operator, window and spatial output, without axes of one position.

        Padding is left out: some classes pad by hand before an unpadded operator. So is the batch.
        """
        geometry, call = self.geometry, self.call
        spatial = call.output[-geometry.dims :]
        axes = [
            (k, s, n)
            for k, s, n in zip(geometry.kernel, geometry.stride, spatial, strict=True)
            if (k, s, n) != (1, 1, 1)
        ]
        return (self.owner, self.operator, tuple(axes))

    @property
    def description(self) -> str:
        """Short text for messages."""
        where = self.owner or "the model itself"
        return f"{self.operator} {self.geometry} in {where} ({self.type_name})"


def judge(operation: Operation) -> str:
    """Say why an operation is no site; `SITE` (empty) when it is one.

    A site is an operator whose windows step over its input: a convolution, pool or slice with a stride above 1 along a
    spatial axis, unless it pools the whole map or loses nothing. Adaptive pools and stride-1 pools stay.
    """
    geometry, call = operation.geometry, operation.call
    spatial_in, spatial_out = call.input[-geometry.dims :], call.output[-geometry.dims :]
    if operation.operator == "adaptive_pool":
        if all(n == 1 for n in spatial_out):
            return "global: pools the whole map"
        return "adaptive: pools to a fixed size"
    if all(s == 1 for s in geometry.stride):
        return "stride 1: does not downsample"
    if operation.lossless:
        return "lossless: all phases are kept"
    is_pool = operation.operator in {"max_pool", "avg_pool"}
    if is_pool and all(
        n_out == 1 and k >= n for n_out, k, n in zip(spatial_out, geometry.kernel, spatial_in, strict=True)
    ):
        return "global: pools the whole map"
    return SITE
