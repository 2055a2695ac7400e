"""What the sizes that a network learns cost: a term of the loss (arXiv 2205.15254).

A layer's operations grow with the area of its output. Where blocks learn their sizes, a layer of area a costs its
operations times the product of the shares that all levels leave which put out at least a, each over its share when that
was measured: what is larger than a comes before the layer, on its way down. A layer whose area is one position (a
classifier) costs what it costs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spdify.blocks.learned_size import LearnedSize, leaders_of
from spdify.errors import UsageError
from spdify.graph.census import is_deformable, operator_macs
from spdify.graph.structure import fake_copy, fake_inputs
from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from spdify.records import Preprocessing, Recipe

GIGA = 1e9
CONVOLUTION_AXES = 3  # a convolution's output has at least one spatial axis, behind batch and channels


class SizeCost:
    """The operations of a network as a function of the sizes that it learns.

    Attributes:
        terms: GMACs of one image, and which levels shrink them.
    """

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        """Measure a network on fake inputs; the sizes that it has now are those that count as whole.

        Args:
            network: Not changed; its parameters are read each time that the cost is asked for.
            inputs: Of the network, for their sizes.

        Raises:
            UsageError: It learns no sizes.
        """
        self._levels = list(leaders_of(network))
        if not self._levels:
            raise UsageError(
                "cannot put a price on sizes: the network learns none (--size-penalty)",
                hint="Convert it with the rulebook dynopool or shape-adaptor.",
            )
        self._whole = [level.shares().detach().prod() for level in self._levels]
        work, areas = _measured(network, inputs)
        self.terms = [
            (macs / GIGA, [i for i, put_out in enumerate(areas) if put_out >= area])
            for area, macs in sorted(work.items())
            if area > 1
        ]

    def __call__(self) -> Tensor:
        """Give the cost in GMACs per image, differentiable in the sizes."""
        left = [
            level.shares().prod() / whole.to(level.shares())
            for level, whole in zip(self._levels, self._whole, strict=True)
        ]
        costs = [
            macs * math.prod((left[i] for i in shrinking), start=torch.ones_like(left[0]))
            for macs, shrinking in self.terms
        ]
        return torch.stack(costs).sum()


class _Work(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Counts multiply-accumulates by the area of what they make."""

    def __init__(self) -> None:
        """Begin at none."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_area: dict[int, int] = defaultdict(int)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the operator and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket  # noqa: SLF001 - as torch.utils.flop_counter does
        if macs := operator_macs(packet, args, kwargs, out):
            shape = (out[0] if isinstance(out, (tuple, list)) else out).shape
            # A matrix has a row for each position.
            is_map = packet is torch.ops.aten.convolution or is_deformable(packet)
            is_map = is_map and len(shape) >= CONVOLUTION_AXES
            area = math.prod(shape[2:]) if is_map else shape[-2]
            self.by_area[area] += macs
        return out


def _measured(network: nn.Module, inputs: Inputs) -> tuple[dict[int, int], list[int]]:
    """Give the operations by area, and the area that each level puts out first."""
    copied, mode = fake_copy(network)
    levels = list(leaders_of(copied))
    areas = dict.fromkeys(range(len(levels)), 0)

    def watch(level: int) -> Any:  # noqa: ANN401 - a forward hook
        def hook(_module: LearnedSize, _args: object, output: Tensor) -> None:
            areas[level] = areas[level] or math.prod(output.shape[2:])

        return hook

    for level, block in enumerate(levels):
        block.register_forward_hook(watch(level))
    args, kwargs = fake_inputs(inputs, mode, batch=1)
    work = _Work()
    with mode, torch.no_grad(), work:
        copied.eval()(*args, **kwargs)
    return work.by_area, list(areas.values())


def size_cost_of(network: nn.Module, recipe: Recipe, how: Preprocessing) -> SizeCost | None:
    """Measure what a network's sizes cost, where a recipe has them cost something.

    Raises:
        UsageError: They should, and the network learns none.
    """
    if not recipe.size_penalty:
        return None
    return SizeCost(network, Inputs(args=(InputSpec(shape=(1, *how.input_size)),)))
