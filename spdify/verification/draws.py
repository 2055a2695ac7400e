"""Random numbers that depend on a tensor's shape alone, and not on how it lies in memory.

PyTorch fills a tensor in the order of its memory. A block may put out its map in another memory format than the
operator whose place it takes: dropout behind it would then drop other entries, though both networks are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable

#: Fill a tensor; dropout does so with the first.
_FILLING = frozenset({"bernoulli_", "uniform_", "normal_", "exponential_", "random_"})
_LIKE = frozenset({"rand_like", "randn_like", "randint_like"})


class DrawnByShape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Draws what is inside in the order of a tensor's indices."""

    def __init__(self) -> None:
        """Begin."""
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator of PyTorch
        types: Any,  # noqa: ANN401 - as PyTorch has it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the operator gives
        """Run an operator."""
        named, name = kwargs or {}, func.overloadpacket.__name__
        if name in _FILLING and not args[0].is_contiguous():
            return args[0].copy_(_filled(func, args, named))
        if name in _LIKE:
            named = named | {"memory_format": torch.contiguous_format}
        return func(*args, **named)


def _filled(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401 - a tensor
    return func(torch.empty_like(args[0], memory_format=torch.contiguous_format), *args[1:], **named)
