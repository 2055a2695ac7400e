"""Which module is running, at any moment of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils._pytree import tree_leaves

from spdify.graph.tracer import BLOCKS_PACKAGE, OPAQUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.utils.hooks import RemovableHandle


@dataclass
class ModuleCall:
    """What goes into a module and what comes out, at its first call.

    Attributes:
        input: Shape of the largest tensor; None where there is none.
        output: Likewise.
        outputs: Shapes of all that comes out: the tensors of a list, tuple or dictionary in turn; one for a tensor.
        single: Whether a tensor comes out, and nothing around it or beside it.
    """

    input: tuple[int, ...] | None
    output: tuple[int, ...] | None = None
    outputs: tuple[tuple[int, ...], ...] = ()
    single: bool = False


class OwnerStack:
    """Knows which module is running, by forward hooks.

    Attributes:
        failed_at: Path of the innermost module whose forward raised; None while nothing did.
        calls: What was called, by path, in the order of the first calls.
    """

    def __init__(self, model: nn.Module) -> None:
        """Hook every module of `model`; the first of several paths names a shared one."""
        self.failed_at: str | None = None
        self.calls: dict[str, ModuleCall] = {}
        self._stack: list[tuple[str, nn.Module]] = [("", model)]
        self._handles: list[RemovableHandle] = []
        for path, module in model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(path), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leaving, always_call=True))

    def _entering(self, path: str) -> Callable[[nn.Module, object, object], None]:
        def enter(module: nn.Module, args: object, kwargs: object) -> None:
            self._stack.append((path, module))
            if path not in self.calls:
                self.calls[path] = ModuleCall(_largest((args, kwargs)))
            self.failed_at = None  # a fault that the model caught itself

        return enter

    def _leaving(self, module: nn.Module, _args: object, output: object) -> None:
        # Hooks with always_call also run while a fault passes through, with no output.
        if output is None and self.failed_at is None:
            self.failed_at = self.current[0]
        if len(self._stack) > 1 and self._stack[-1][1] is module:
            call = self.calls[self._stack.pop()[0]]
            if call.output is None:
                call.output, call.outputs = _largest(output), _shapes(output)
                call.single = isinstance(output, Tensor)

    @property
    def current(self) -> tuple[str, nn.Module]:
        """Path and module of the innermost running module."""
        return self._stack[-1]

    @property
    def in_block(self) -> bool:
        """Whether one of spdify's own blocks is running."""
        return type(self.current[1]).__module__.startswith(BLOCKS_PACKAGE)

    @property
    def in_opaque_block(self) -> bool:
        """Whether what runs is within a block that says that what it shrinks by is its own matter."""
        return any(getattr(type(module), OPAQUE, False) for _, module in self._stack)

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


def _shapes(values: object) -> tuple[tuple[int, ...], ...]:
    """Give the shapes of a tensor, or of those that a list, tuple or dictionary holds in turn."""
    held = list(values.values()) if isinstance(values, dict) else values
    items = held if isinstance(held, (list, tuple)) else (held,)
    return tuple(tuple(item.shape) for item in items if isinstance(item, Tensor))


def _largest(values: object) -> tuple[int, ...] | None:
    """Give the shape of the largest tensor, the first of several; None where there is none."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return tuple(max(tensors, key=Tensor.numel).shape) if tensors else None
