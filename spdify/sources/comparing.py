"""Where two structures differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch import nn


def first_difference(model: nn.Module, other: nn.Module) -> str | None:
    """Say where two structures first differ: in a module's path, class or settings, or in a state dict's shapes.

    Args:
        model: On any device.
        other: On any device.

    Returns:
        The place with both contents, or None where they are the same.
    """
    for ours, theirs in ((_modules(model), _modules(other)), (_tensors(model), _tensors(other))):
        for path in [*ours, *(p for p in theirs if p not in ours)]:
            if ours.get(path) != theirs.get(path):
                return f"{path or 'the model'}: {ours.get(path, 'nothing')} and {theirs.get(path, 'nothing')}"
    return None


def _modules(model: nn.Module) -> dict[str, str]:
    return {path: f"{type(m).__name__}({m.extra_repr()})" for path, m in model.named_modules()}


def _tensors(model: nn.Module) -> dict[str, str]:
    return {name: str(tuple(t.shape)) for name, t in model.state_dict().items() if isinstance(t, Tensor)}
