"""Example inputs at any batch size, and which of their axes is the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.export import Dim, ShapesCollection
from torch.nn import functional as F  # noqa: N812 - the name everybody uses
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

MakeInputs: TypeAlias = Callable[[int], tuple[tuple[Tensor, ...], dict[str, Tensor]]]
DynamicShapes: TypeAlias = dict[str, Any] | tuple[Any, ...] | list[Any] | None

BATCH_AXIS, SIZE_AXES = "batch", ("height", "width")
IMAGE_AXES = 4  # N, C, H, W
# 0 and 1 are special cases to torch.export (broadcasting): the smallest batch that stands for all is 2.
TRACED_BATCH = 2


@dataclass(frozen=True)
class Example:
    """One set of inputs.

    Attributes:
        args: Positional inputs, batch first.
        kwargs: Inputs by name, batch first.
    """

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All input tensors, in the order in which an exported program takes them."""
        return tensors_in((self.args, self.kwargs))

    @property
    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """The same as NumPy arrays."""
        return [tensor.detach().numpy() for tensor in self.tensors]


def tensors_in(tree: object) -> list[Tensor]:
    """Flatten nested tuples, lists, dicts and registered dataclasses; what is no tensor is left out, as in ONNX."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


class Examples:
    """Example inputs at any batch size; the same ones each time they are asked for."""

    def __init__(self, make_inputs: MakeInputs, seed: int, dtype: torch.dtype | None = None) -> None:
        """Keep `make_inputs`, which gives (args, kwargs) for a batch size, and the `seed` it is called under.

        With a `dtype`, floating-point inputs are given in it.
        """
        self._make_inputs = make_inputs
        self._seed = seed
        self._dtype = dtype

    def at(self, batch: int) -> Example:
        """Give the inputs at this batch size; the caller's random state is not touched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            args, kwargs = self._make_inputs(batch)
        if self._dtype is not None:
            args, kwargs = pytree.tree_map_only(Tensor, self._cast, (tuple(args), dict(kwargs)))
        return Example(tuple(args), dict(kwargs))

    def other(self) -> Example:
        """Give inputs of batch 1 with other numbers in them."""
        pair = self.at(TRACED_BATCH)
        batched = iter(self.batched())

        def last(tensor: Tensor) -> Tensor:
            return tensor[-1:] if next(batched) else tensor

        return Example(*pytree.tree_map_only(Tensor, last, (pair.args, pair.kwargs)))

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def batched(self) -> list[bool]:
        """Tell for each input tensor whether its first axis follows the batch size."""
        pair = zip(self.at(TRACED_BATCH).tensors, self.at(TRACED_BATCH + 1).tensors, strict=True)
        return [a.shape[:1] != b.shape[:1] for a, b in pair]

    @property
    def takes_images(self) -> bool:
        """Whether there is one input, floating-point, of the shape (N, C, H, W)."""
        tensors = self.at(TRACED_BATCH).tensors
        return len(tensors) == 1 and tensors[0].dim() == IMAGE_AXES and tensors[0].is_floating_point()

    def resized(self, batch: int, size: tuple[int, int]) -> Example:
        """Give images at another height and width."""
        example = self.at(batch)

        def resize(image: Tensor) -> Tensor:
            return F.interpolate(image, size=size)

        return Example(*pytree.tree_map_only(Tensor, resize, (example.args, example.kwargs)))

    def dynamic_shapes(self, model: nn.Module, example: Example, *, sizes: bool = False) -> DynamicShapes:
        """Give what `torch.export.export` calls `dynamic_shapes`: one common batch size, and height and width if asked.

        For the batch whatever restricts it is a fault; of height and width, the trace may find out a range.
        """
        batch, shapes = Dim(BATCH_AXIS), ShapesCollection()  # type: ignore[no-untyped-call]
        for tensor, batched in zip(example.tensors, self.batched(), strict=True):
            open_axes: dict[int, Any] = {0: batch} if batched else {}
            if sizes:
                open_axes |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
            if open_axes:
                shapes[tensor] = open_axes
        return shapes.dynamic_shapes(model, example.args, example.kwargs)  # type: ignore[no-any-return,no-untyped-call]
