"""Float32 islands: places where a model computes in float32 whatever it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spdify.graph.owners import OwnerStack

if TYPE_CHECKING:
    from collections.abc import Sequence


class _IslandMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Notes the owner of every operator that makes lower-precision numbers from float64 ones."""

    def __init__(self, owners: OwnerStack) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owners: dict[str, None] = {}
        self._stack = owners

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the operator and look at its dtypes."""
        out = func(*args, **(kwargs or {}))
        if _has_dtype((args, kwargs), torch.float64) and any(
            isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64 for t in tree_leaves(out)
        ):
            self.owners[self._stack.current[0] or "the top"] = None
        return out


def _has_dtype(values: object, dtype: torch.dtype) -> bool:
    return any(isinstance(t, Tensor) and t.dtype == dtype for t in tree_leaves(values))


def find_islands(model: nn.Module, inputs: tuple[Sequence[Tensor], dict[str, Tensor]]) -> tuple[str, ...]:
    """Give the paths of modules that turn float64 into a smaller dtype in one forward pass of a float64 model.

    Args:
        model: Run in eval mode; its modules get back the modes that they had.
        inputs: Positional and named inputs.
    """
    owners = OwnerStack(model)
    mode = _IslandMode(owners)
    args, kwargs = inputs
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), mode:
            model.eval()(*args, **kwargs)
    finally:
        owners.remove()
        for module, training in modes.items():
            module.training = training
    return tuple(mode.owners)
