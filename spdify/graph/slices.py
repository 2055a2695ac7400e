"""Subsampling by slicing: which slices take every s-th row and column, and which lose nothing.

A slice is spatial subsampling when it steps along two axes or more; rotary and positional encodings step along one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from spdify.graph.operations import Operation
from spdify.records import Call, Geometry, Shape

if TYPE_CHECKING:
    from spdify.graph.calls import CallPlace

MIN_STEPPED_AXES = 2
#: A block gives a map of its own, in the place of a view.
WRITTEN = "it is a view of a map that is written to in place afterwards"


@dataclass(frozen=True)
class Steps:
    """A strided slice of one tensor: (axis, start, step) of each stepped axis, in the order of the axes."""

    axes: tuple[tuple[int, int, int], ...]

    @property
    def is_spatial(self) -> bool:
        """Whether it steps along two axes or more, the batch not among them."""
        return len(self.axes) >= MIN_STEPPED_AXES and self.axes[0][0] > 0

    def then(self, axis: int, start: int, step: int) -> Steps:
        """Add a slice of the result along one axis, which may have been sliced before."""
        axes = {a: (first, s) for a, first, s in self.axes}
        before, stride = axes.get(axis, (0, 1))
        axes[axis] = (before + stride * start, stride * step)
        return Steps(tuple((a, *axes[a]) for a in sorted(axes)))

    def joined(self, later: Steps) -> Steps:
        """Add all slices of `later`, taken of this one's result."""
        steps = self
        for axis, start, step in later.axes:
            steps = steps.then(axis, start, step)
        return steps


@dataclass(frozen=True)
class FoundSlice:
    """One spatial slice.

    Attributes:
        owner: Path of the module that takes it.
        steps: Axes, starts and steps.
        shape: Of the tensor that is stepped over.
        inside: Path of the composite leaf that hides it from the whole trace.
        place: The expression that takes it.
        obstacle: Why that expression cannot be edited.
        storage: Of the memory that it is a view of; 0 where that is not known.
    """

    owner: str
    steps: Steps
    shape: Shape
    inside: str = ""
    place: CallPlace | None = None
    obstacle: str = ""
    storage: int = 0


@dataclass
class SliceGroup:
    """All spatial slices with the same steps of one tensor."""

    found: list[FoundSlice] = field(default_factory=list)

    def operations(self) -> list[Operation]:
        """Give the slices as operations, lossless when together they read every phase."""
        steps = self.found[0].steps.axes
        starts = {tuple(start % step for _, start, step in found.steps.axes) for found in self.found}
        lossless = len(starts) == math.prod(step for _, _, step in steps)
        return [_as_operation(found, lossless=lossless) for found in self.found]


class SliceBook:
    """Spatial slices of a forward pass, grouped by the tensor they read."""

    def __init__(self) -> None:
        """Start empty."""
        self._groups: dict[tuple[object, ...], SliceGroup] = {}

    def add(self, source: object, found: FoundSlice) -> None:
        """Note one slice of the tensor that `source` identifies."""
        self._groups.setdefault(_key(source, found), SliceGroup()).found.append(found)

    def drop(self, source: object, found: FoundSlice) -> None:
        """Forget a slice that was only a part of one: what it gives is stepped over along a further axis."""
        self._groups[_key(source, found)].found.remove(found)

    def write(self, storage: int) -> None:
        """Note that memory is written to: a slice of it that was taken before sees that, or has done it."""
        for group in self._groups.values():
            group.found = [
                replace(one, obstacle=one.obstacle or WRITTEN) if one.storage == storage else one for one in group.found
            ]

    def operations(self) -> list[Operation]:
        """Give all slices as operations."""
        return [operation for group in self._groups.values() if group.found for operation in group.operations()]


def _key(source: object, found: FoundSlice) -> tuple[object, ...]:
    return source, tuple((axis, step) for axis, _, step in found.steps.axes)


def steps_of_index(index: object, shape: Shape) -> tuple[Steps, Shape, bool] | None:
    """Read the steps of `x[index]`; None when nothing is stepped over or a tensor takes part.

    PyTorch works through an index from left to right, so what stands before a step decides which
    tensor is stepped over.

    Args:
        index: What stands in the brackets.
        shape: Of x.

    Returns:
        The steps, the shape of the tensor that is stepped over, and whether that is x itself.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is Ellipsis or item is None or type(item) in {slice, int} for item in items):
        return None
    if Ellipsis in items:
        at = items.index(Ellipsis)
        used = sum(item is not None for item in items) - 1
        items[at : at + 1] = [slice(None)] * (len(shape) - used)
    current, steps, axis, whole = list(shape), Steps(()), 0, True
    for item in items:
        if isinstance(item, slice) and isinstance(item.step, int) and item.step > 1:
            start = item.start or 0
            steps = steps.then(axis, start + current[axis] if start < 0 else start, item.step)
        elif (sizes := _other_sizes(item, current[axis] if axis < len(current) else 0)) is not None:
            if steps.is_spatial:
                break
            steps, whole = Steps(()), False
            current[axis : axis + (item is not None)] = sizes
            axis += len(sizes) - 1
        axis += 1
    return (steps, tuple(current), whole) if steps.axes else None


def _other_sizes(item: object, size: int) -> tuple[int, ...] | None:
    """Give what a new axis, a picked position or a crop leaves of an axis; None where the axis stays as it is."""
    if item is None:
        return (1,)
    if not isinstance(item, slice):
        return ()
    left = len(range(*slice(item.start, item.stop).indices(size)))
    return (left,) if left != size else None


def _as_operation(found: FoundSlice, *, lossless: bool) -> Operation:
    """Describe a slice as a window of one tap; shapes are turned to channels first."""
    steps, shape = found.steps, found.shape
    stepped = [axis for axis, _, _ in steps.axes]
    rest = [axis for axis in range(1, len(shape)) if axis not in stepped]
    channels = math.prod(shape[axis] for axis in rest)
    spatial = tuple(shape[axis] for axis in stepped)
    stride = tuple(step for _, _, step in steps.axes)
    out = tuple(-(-(n - start) // s) for n, (_, start, s) in zip(spatial, steps.axes, strict=True))
    dims = len(stride)
    return Operation(
        owner=found.owner,
        operator="slice",
        type_name="slice",
        called=False,
        geometry=Geometry(
            in_channels=channels, out_channels=channels, kernel=(1,) * dims, stride=stride,
            padding=(0,) * dims, dilation=(1,) * dims,
        ),
        call=Call(input=(shape[0], channels, *spatial), output=(shape[0], channels, *out)),
        lossless=lossless,
        inside=found.inside,
        place=found.place,
        obstacle=found.obstacle,
        axes=tuple(stepped),
        starts=tuple(start for _, start, _ in steps.axes),
        rank=len(shape),
    )  # fmt: skip
