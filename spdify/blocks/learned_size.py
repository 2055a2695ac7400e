"""What blocks share whose output size is learned.

Maps that meet must have equal sizes, so blocks at one level of a network share one number: the first of them leads and
has the parameter, the others read it there. Sizes are whole numbers for PyTorch, so a forward pass reads the parameter.
Where that has no data (a copy on fake tensors, an export), the numbers count that it had when a pass last saw data, a
state dict was loaded or the block was copied; an exported program keeps the sizes that it was made with.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

Numbers: TypeAlias = tuple[float, ...]


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types there
def numbers_of(learned: Tensor | None, known: Numbers) -> Numbers:
    """Give the numbers that a parameter holds; those that are known of it where it has no data."""
    if learned is None or not _has_data(learned):
        return known
    return tuple(learned.detach().tolist())


def _has_data(tensor: Tensor) -> bool:
    return not (tensor.is_meta or isinstance(tensor, FakeTensor) or torch.compiler.is_exporting())


class LearnedSize(nn.Module):
    """A block whose output size is learned.

    Attributes:
        known: What its parameter held when it was last seen.
    """

    #: Of the parameter, and numbers that differ from each other and from those at the start, to try a network with.
    PARAMETER: ClassVar[str]
    TRIALS: ClassVar[Numbers]
    known: Numbers
    #: Whether what it computes cannot be written for open sizes.
    by_size: ClassVar[bool] = True

    def begin(self, start: Sequence[float], *, leads: bool) -> None:
        """Take the numbers at the start, and make them a parameter of this block where it leads."""
        self.start = self.known = tuple(start)
        self._leader: list[LearnedSize] = []  # in a list: the leader is no part of this block
        self.register_parameter(self.PARAMETER, nn.Parameter(torch.tensor(self.start)) if leads else None)

    def reset_size(self) -> None:
        """Set the parameter, if it has one, to the start."""
        self.fill(self.start)

    def fill(self, numbers: Numbers) -> None:
        """Have the parameter hold these numbers."""
        own: nn.Parameter | None = getattr(self, self.PARAMETER)
        if own is not None:
            with torch.no_grad():
                own.copy_(torch.tensor(numbers, dtype=own.dtype, device=own.device))
        self.known = numbers

    def follow(self, leader: LearnedSize) -> None:
        """Read the parameter of another block from now on."""
        self._leader = [leader]

    @property
    def leader(self) -> LearnedSize:
        """The block that has the parameter."""
        return self._leader[0] if self._leader else self

    @property
    def learned(self) -> Tensor | None:
        """The parameter; None where nobody has one, and the size is that of the start."""
        found: Tensor | None = getattr(self.leader, self.PARAMETER)
        return found

    def shares(self) -> Tensor:
        """Give the share of positions that is left, by axis or for all axes; differentiable."""
        raise NotImplementedError

    def seen(self) -> Numbers:
        """Give the leader's numbers, as far as they are known, and keep them for when there is no data."""
        leader = self.leader
        own: object = getattr(leader, self.PARAMETER)
        # Not in a trace, whose parameters are something else.
        if type(own) is nn.Parameter and not own.is_meta and not torch.compiler.is_compiling():
            leader.known = numbers_of(own, leader.known)
        return leader.known

    def frozen(self) -> Self:
        """Copy the block with the size that it has learned, which does not change any more."""
        numbers = self.seen()
        twin = copy.copy(self)
        twin._parameters = self._parameters | {self.PARAMETER: None}  # noqa: SLF001 - of the same class
        twin._leader = []  # noqa: SLF001 - as above
        twin = copy.deepcopy(twin)
        twin.start = twin.known = numbers
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Be copied with what the parameter holds now."""
        self.seen()
        return vars(self).copy()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of torch.nn
        super()._load_from_state_dict(*args, **kwargs)
        self.seen()


def leaders_of(model: nn.Module) -> Iterator[LearnedSize]:
    """Yield the blocks that have a parameter for their size."""
    for module in model.modules():
        if isinstance(module, LearnedSize) and getattr(module, module.PARAMETER) is not None:
            yield module


def try_sizes(model: nn.Module, turn: int = 0) -> bool:
    """Give every level of a network another size than at the start, in place, and others each turn; tell of any."""
    number = turn
    for number, block in enumerate(leaders_of(model), start=turn + 1):
        block.fill((block.TRIALS[number % len(block.TRIALS)],) * len(block.start))
    return number > turn
