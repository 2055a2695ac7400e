"""Other ways of shrinking a map than convolutions, pools and slices: they are listed with a reason, and stay.

Seen at the operator level, in the census alone:

- unfolding with a stride (`im2col`, torch.nn.Unfold), and resizing to a smaller grid (`upsample_*`), by operator;
- space-to-depth: `pixel_unshuffle`; or a view that splits two axes or more in two, a permutation, and a view that
  joins the inner halves with the channels (patch merging, TResNet's stem);
- the maximum over an axis that a view has split from positions (Hiera's pooling).

Not seen: the same done through other operators (`torch.Tensor.unfold`, `einsum`, indexing with tensors), dropped or
merged tokens, means over a split axis. Resizing a position embedding to a smaller grid is listed like that of a map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spdify.records import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.records import Shape

aten = torch.ops.aten
VIEWS = frozenset({aten.view, aten._unsafe_view})  # noqa: SLF001 - aten names
RESIZES = frozenset(
    getattr(aten, name)
    for name in (
        "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
        "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    )
)  # fmt: skip
MAXIMA = frozenset({aten.amax, aten.max})
WATCHED = VIEWS | RESIZES | MAXIMA | {aten.im2col, aten.pixel_unshuffle, aten.permute, aten.clone}

UNFOLD = "unfolds windows into columns: loses nothing"
RESIZE = "resizes to a smaller grid: not a window that steps over its input"
SPACE_TO_DEPTH = "lossless: moves blocks of positions to channels already (space-to-depth)"
MAXIMUM = "maximum over positions that were regrouped before: not a window that steps over its input"

MIN_SPLIT_AXES = 2


@dataclass(frozen=True)
class Shrinking:
    """One way of shrinking that is no convolution, pool or slice."""

    owner: str
    operator: str
    reason: str
    call: Call


@dataclass(frozen=True)
class _Axes:
    """The axes of a tensor that a view has split, in their present order.

    Attributes:
        tensor: Kept, so that its id stays its own.
        shape: Of the tensor before the view.
        origin: For each axis the axis that it comes from.
        inner: For each axis whether it is the last part of a split one.
    """

    tensor: Tensor
    shape: Shape
    origin: tuple[int, ...]
    inner: tuple[bool, ...]

    @property
    def split(self) -> set[int]:
        """The axes that were split."""
        return {axis for axis in self.origin if self.origin.count(axis) > 1}


class ShrinkingBook:
    """Notes what shrinks in other ways in a forward pass."""

    def __init__(self) -> None:
        """Start empty."""
        self.found: list[Shrinking] = []
        self._split: dict[int, _Axes] = {}

    def note(self, packet: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any, owner: str) -> None:  # noqa: ANN401
        """Look at one operator of `WATCHED`."""
        x = args[0]
        if packet in VIEWS:
            self._note_view(x, out, owner)
        elif packet is aten.permute:
            self._follow(x, out, tuple(axis % x.dim() for axis in args[1]))
        elif packet is aten.clone:
            self._follow(x, out, tuple(range(x.dim())))
        elif packet in MAXIMA:
            over = kwargs.get("dim", args[1] if len(args) > 1 else None)
            self._note_maximum(x, over, out if isinstance(out, Tensor) else out[0], owner)
        elif packet is aten.pixel_unshuffle:
            self._add(owner, "pixel_unshuffle", SPACE_TO_DEPTH, x, out)
        elif packet is aten.im2col:
            stride = kwargs.get("stride", args[4] if len(args) > 4 else (1,))  # noqa: PLR2004 - aten's order
            if any(s > 1 for s in stride):
                self._add(owner, "unfold", UNFOLD, x, out)
        elif math.prod(out.shape[2:]) < math.prod(x.shape[2:]):
            self._add(owner, "resize", RESIZE, x, out)

    def _add(self, owner: str, operator: str, reason: str, x: Tensor, out: Tensor) -> None:
        call = Call(input=tuple(x.shape), output=tuple(out.shape))
        self.found.append(Shrinking(owner, operator, reason, call))

    def _axes(self, x: Tensor) -> _Axes | None:
        known = self._split.get(id(x))
        return known if known is not None and known.tensor is x else None

    def _follow(self, x: Tensor, out: Tensor, order: tuple[int, ...]) -> None:
        """Carry what is known of the axes over to a permuted or copied tensor."""
        known = self._axes(x)
        if known is not None:
            origin = tuple(known.origin[axis] for axis in order)
            inner = tuple(known.inner[axis] for axis in order)
            self._split[id(out)] = _Axes(out, known.shape, origin, inner)

    def _note_view(self, x: Tensor, out: Tensor, owner: str) -> None:
        known = self._axes(x)
        if known is not None and _joins_blocks(known, tuple(x.shape), tuple(out.shape)):
            self.found.append(
                Shrinking(owner, "rearrangement", SPACE_TO_DEPTH, Call(input=known.shape, output=tuple(out.shape)))
            )
        if out.dim() > x.dim() and (groups := _groups(tuple(x.shape), tuple(out.shape))) is not None:
            origin = tuple(axis for axis, group in enumerate(groups) for _ in group)
            inner = tuple(i == len(group) - 1 and len(group) > 1 for group in groups for i in range(len(group)))
            self._split[id(out)] = _Axes(out, tuple(x.shape), origin, inner)

    def _note_maximum(self, x: Tensor, over: object, out: Tensor, owner: str) -> None:
        known = self._axes(x)
        if known is None or not isinstance(over, (int, list, tuple)):
            return
        axes = [axis % x.dim() for axis in ([over] if isinstance(over, int) else over)]
        last, channels = len(known.shape) - 1, {1} if len(known.shape) > 3 else set()  # noqa: PLR2004 - (N, C, H, W)
        if len(axes) == 1 and known.origin[axes[0]] in known.split - {0, last} - channels:
            self._add(owner, "max", MAXIMUM, x, out)


def _groups(whole: Shape, parts: Shape) -> list[list[int]] | None:
    """Give, for each axis of `whole`, the axes of `parts` that it is split into; None where a view does more."""
    groups: list[list[int]] = []
    at = 0
    for size in whole:
        group: list[int] = []
        product = 1
        while at < len(parts) and (not group or product < size):
            group.append(at)
            product *= parts[at]
            at += 1
        if product != size:
            return None
        groups.append(group)
    return groups if at == len(parts) else None


def _joins_blocks(axes: _Axes, before: Shape, after: Shape) -> bool:
    """Whether a view joins the inner parts of two split axes or more with the channels, and with no outer part."""
    groups = _groups(after, before)
    if groups is None or len(axes.split) < MIN_SPLIT_AXES:
        return False
    for group in groups:
        inner = [i for i in group if axes.inner[i]]
        whole = [i for i in group if axes.origin[i] not in axes.split and axes.origin[i] != 0]
        outer = [i for i in group if axes.origin[i] in axes.split and not axes.inner[i] and before[i] > 1]
        if len(inner) >= MIN_SPLIT_AXES and whole and not outer:
            return True
    return False
