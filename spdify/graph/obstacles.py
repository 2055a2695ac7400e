"""What stands in the way of replacing a module, and the names under which it is registered."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.utils import parametrize

from spdify.graph.adapters import adapter_of, constants_of

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import ParamValue

RETURNS_INDICES = "it returns indices"


class ModuleFacts:
    """What makes replacing a module unsafe, and under which names it is registered."""

    def __init__(self, model: nn.Module, reads: set[str]) -> None:
        """Look through `model`; `reads` are the paths of tensors that its forward reads by itself."""
        self._modules = dict(model.named_modules())
        self._reads = reads
        self.paths: dict[int, list[str]] = defaultdict(list)
        self._holders: dict[int, list[str]] = defaultdict(list)
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths[id(module)].append(path)
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                self._holders[id(parameter)].append(f"{path}.{name}")

    def aliases(self, path: str) -> tuple[str, ...]:
        """Other names of the module at `path`."""
        return tuple(p for p in self.paths[id(self._modules[path])] if p != path)

    def constants(self, path: str) -> dict[str, ParamValue]:
        """What a rewrite needs to know of the module at `path` beside its window and tensors."""
        return constants_of(self._modules[path])

    def obstacles(self, path: str) -> tuple[str, ...]:
        """Reasons not to replace the called module at `path`."""
        module = self._modules[path]
        found = []
        if parametrize.is_parametrized(module):
            found.append("its weight is parametrized (torch.nn.utils.parametrize)")
        elif adapter_of(module) is None and (own := _own_forward(module)) is not None:
            found.append(own)
        if module._forward_pre_hooks or module._forward_hooks:  # noqa: SLF001 - torch has no public list of hooks
            found.append("it has forward hooks (old weight norm, pruning, or your own)")
        if module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001
            found.append("it has backward hooks")
        if (more := _further_tensors(module)) and not parametrize.is_parametrized(module):
            found.append(f"it holds more than {_usual_tensors(module)}: {', '.join(more)}")
        if getattr(module, "return_indices", False):
            found.append(RETURNS_INDICES)
        return (*found, *self._outside(path))

    def _outside(self, path: str) -> list[str]:
        """List which of a module's parameters others hold, and which of its tensors others read."""
        module, found = self._modules[path], []
        for name, parameter in module.named_parameters(recurse=False):
            others = [holder for holder in self._holders[id(parameter)] if holder != f"{path}.{name}"]
            if others:
                found.append(f"its {name} is shared with {', '.join(others)}")
        for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if f"{path}.{name}" in self._reads:
                found.append(f"its {name} is read from outside the module")
        return found

    def module(self, path: str) -> nn.Module:
        """Give the module at `path`."""
        found: nn.Module = self._modules[path]
        return found

    def parent(self, path: str) -> str:
        """Give the class of the module that holds the one at `path`; empty where that is the model itself."""
        holder = path.rpartition(".")[0]
        return type(self._modules[holder]).__name__ if holder else ""

    def bonds(self, path: str, *, own_reads: bool = False) -> tuple[str, ...]:
        """Reasons not to change the number of channels of the module at `path`.

        Args:
            path: Of any module.
            own_reads: Whether reads of its tensors by the code around it are known, and no reason.
        """
        module = self._modules[path]
        found = ["its weight is parametrized"] if parametrize.is_parametrized(module) else []
        if module._forward_pre_hooks or module._forward_hooks:  # noqa: SLF001 - torch has no public list of hooks
            found.append("it has forward hooks (old weight norm, pruning, or your own)")
        if module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001
            found.append("it has backward hooks")
        return (*found, *(() if own_reads else self._outside(path)))


def _usual_tensors(module: nn.Module) -> str:
    adapter = adapter_of(module)
    if adapter is None or adapter.tensors == ("weight", "bias"):
        return "a weight and a bias parameter"
    return f"the parameters of a {type(module).__name__}"


def _further_tensors(module: nn.Module) -> list[str]:
    """List what a convolution or pool of its class does not have: other parameters, a weight that is none."""
    adapter = adapter_of(module)
    own = ("weight", "bias") if adapter is None else adapter.tensors
    more = [name for name, _ in module.named_parameters(recurse=False) if name not in own]
    buffers = dict(module.named_buffers(recurse=False))
    return more + [name for name in own if name in buffers or isinstance(vars(module).get(name), Tensor)]


def _own_forward(module: nn.Module) -> str | None:
    """Say that a subclass computes something of its own; None when it is the torch.nn class in other clothes."""
    kind = type(module)
    base = next((b for b in kind.__mro__ if b.__module__.startswith("torch.nn.modules.")), None)
    if base is None or kind is base:
        return None
    if any(name in vars(k) for k in kind.__mro__[: kind.__mro__.index(base)] for name in ("forward", "_conv_forward")):
        return f"{kind.__name__} computes more than {base.__name__} (its own forward)"
    return None
