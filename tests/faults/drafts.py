"""Source code that is being written: a module, its classes, and what a map's shape is by then."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import timm.layers
import torch
from timm.layers import pool2d_same
from torch import nn

from tests.faults.windows import Op, activation, conv, norm, pool, subsample, timm_conv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.windows import Choose

PLANE = 2  # axes of an image
SMALLEST = 4  # positions along an axis that are still shrunk


@dataclass
class Draft:
    """A module of source code that is being written."""

    choose: Choose
    classes: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)

    def chance(self, times: int) -> bool:
        """Say yes once in so many times."""
        return self.choose((False,) * (times - 1) + (True,))


class ClassDraft:
    """A class that is being written: what its instance holds, and what its forward does to `x`."""

    def __init__(self, draft: Draft, name: str, shape: Sequence[int]) -> None:
        self.draft, self.name, self.shape = draft, name, tuple(shape)
        self.init: list[str] = []
        self.body: list[str] = []
        self.methods = ""

    def own(self, expression: str, name: str) -> str:
        """Hold a module or parameter; gives how to read it."""
        name = f"{name}{len(self.init)}"
        self.init.append(f"self.{name} = {expression}")
        return f"self.{name}"

    def apply(self, op: Op | None, x: str = "x", to: str = "x", shape: Sequence[int] = ()) -> tuple[int, ...] | None:
        """Write a call, if it can be made on a map of that shape; gives the shape of what comes out."""
        found = shape_after(op, shape or self.shape) if op is not None else None
        if op is None or found is None:
            return None
        held = self.own(op.module, op.name) if op.module else ""
        self.body.append(f"{to} = {op.call.format(x=x, m=held)}")
        self.draft.features |= set(op.features)
        if to == "x":
            self.shape = found
        return found

    def finish(self, result: str = "x") -> str:
        """Write the class into the module; gives an expression that makes an instance."""
        lines = [f"class {self.name}(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        {line}" for line in self.init]
        lines += [
            "",
            "    def forward(self, x):",
            *(f"        {line}" for line in self.body),
            f"        return {result}",
        ]
        self.draft.classes.append("\n" + "\n".join(lines) + "\n" + self.methods)
        return f"{self.name}()"


def shape_after(op: Op, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Give the shape that an operator gives, without the batch; None where it cannot run."""
    names = {"torch": torch, "nn": nn, "F": nn.functional, "layers": timm.layers, "pool2d_same": pool2d_same}
    with torch.device("meta"):
        try:
            x = torch.empty(2, *shape)
            names |= {"x": x, "self": SimpleNamespace(training=True)}
            names["m"] = eval(op.module, names) if op.module else None  # noqa: S307 - source of our own
            found = eval(op.call.format(x="x", m="m"), names)  # noqa: S307 - likewise
        except (RuntimeError, ValueError, AssertionError):
            return None
    return tuple(found.shape[1:]) if min(found.shape[1:]) > 0 else None


def new_block(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    return ClassDraft(draft, f"Block{len(draft.classes)}", shape)


def strides(draft: Draft, shape: Sequence[int]) -> tuple[int, ...]:
    """Choose a stride that the map is large enough for."""
    dims = len(shape) - 1
    if min(shape[1:]) < SMALLEST:
        return (1,) * dims
    if dims == PLANE and draft.chance(10):
        draft.features.add("asymmetric stride")
        return draft.choose(((1, 2), (2, 1)))
    return (draft.choose((2, 2, 2, 1, 3)),) * dims


def aligned(draft: Draft, shape: Sequence[int], stride: Sequence[int], out: int) -> Op:
    """Make any operator with maps of ceil(n / s) and `out` channels, if it keeps to its promise."""
    kinds = ["conv", "conv", "conv"] + ["timm"] * (len(shape) == PLANE + 1)
    if out == shape[0] and max(stride) > 1:
        kinds += ["pool", "pool", "slice"]
    kind = draft.choose(kinds)
    if kind == "conv":
        op = conv(draft.choose, shape, stride=stride, out=out)
    elif kind == "timm":
        op = timm_conv(draft.choose, shape, stride=stride, out=out)
    elif kind == "pool":
        op = pool(draft.choose, shape, stride=stride)
    else:
        op = subsample(draft.choose, stride=stride)
    return op if shape_after(op, shape) == sized(shape, stride, out) else pointwise(shape, stride, out)


def sized(shape: Sequence[int], stride: Sequence[int], out: int) -> tuple[int, ...]:
    return (out, *(math.ceil(n / s) for n, s in zip(shape[1:], stride, strict=True)))


def pointwise(shape: Sequence[int], stride: Sequence[int], out: int) -> Op:
    made = f"nn.Conv{len(shape) - 1}d({shape[0]}, {out}, 1, stride={tuple(stride)}, bias=False)"
    return Op("{m}({x})", made, "conv", ("conv",))


def dress(block: ClassDraft) -> None:
    """Add a norm and an activation, each with a chance of none."""
    block.apply(norm(block.draft.choose, block.shape))
    block.apply(activation(block.draft.choose, block.shape))


def width_of(draft: Draft, channels: int) -> int:
    return draft.choose((8, 4, 6, 12, channels))
