"""What torch.fx enters and what it stops at."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from spdify.graph.adapters import module_operator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

BLOCKS_PACKAGE = "spdify.blocks"

#: Class attribute of blocks whose strided operators are no sites: they are what the block is.
OPAQUE = "OPAQUE"
#: Norms are looked at whole: what their own code does to channels is known by their class (`spdify.graph.carriers`).
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # noqa: SLF001 - torch gives no public name
#: Modules of torchvision.ops that are nothing but layers one after the other: entered, like anybody's.
OPENED = ("Conv2dNormActivation", "Conv3dNormActivation", "SqueezeExcitation", "MLP")


def _library_leaves() -> tuple[tuple[type[nn.Module], ...], tuple[Callable[..., Any], ...], tuple[Any, ...]]:
    """Give modules, functions and namespaces that timm and torchvision say not to enter, where they are in use."""
    modules: list[type[nn.Module]] = []
    functions: list[Callable[..., Any]] = []
    spaces: list[Any] = []
    if timm_layers := sys.modules.get("timm.layers"):
        modules += timm_layers.get_notrace_modules()
        functions += timm_layers.get_notrace_functions()
    if vision_ops := sys.modules.get("torchvision.ops"):
        spaces.append(vision_ops)
        names = [name for name in vision_ops.__all__ if name not in OPENED]
        modules += [kind for name in names if isinstance(kind := getattr(vision_ops, name), type)]
    return tuple(modules), tuple(functions), tuple(spaces)


class Entry(nn.Module):
    """Calls the model with exactly the inputs that were given; all other arguments keep their defaults.

    Tensors are what the trace follows, however they are nested; flags, sizes and everything else are as given.
    """

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Take the inputs to call the model with."""
        super().__init__()
        self.model = model
        leaves, self._form = tree_flatten((tuple(args), dict(kwargs)))
        self._others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors = [leaves[i] for i in self._places]

    def forward(self, tensors: Any) -> Any:  # noqa: ANN401
        """Run the model."""
        leaves = list(self._others)
        for i, place in enumerate(self._places):
            leaves[place] = tensors[i]
        args, kwargs = tree_unflatten(leaves, self._form)
        return self.model(*args, **kwargs)


def _count_of_parts(node: fx.Node) -> int | None:
    """Give into how many tensors a call of `chunk` or `split` parts one; None where it is none, or does not say."""
    second = node.args[1] if len(node.args) > 1 else None
    if node.target in {"chunk", torch.chunk} and isinstance(second, int):
        return second
    if node.target in {"split", torch.split} and isinstance(second, (list, tuple)):
        return len(second)
    return None


class _Parts(fx.Proxy):
    """Parts of a tensor whose code says how many: they can be listed, where torch.fx must see them unpacked.

    That they are fewer, as `chunk` gives of a short axis, the run of the trace finds out.
    """

    def __init__(self, node: fx.Node, tracer: fx.Tracer, parts: int) -> None:
        super().__init__(node, tracer)
        self._parts = parts

    def __len__(self) -> int:
        return self._parts

    def __iter__(self) -> Iterator[fx.Proxy]:
        return iter([self[i] for i in range(self._parts)])  # type: ignore[index]  # by fx's own operators


class SiteTracer(fx.Tracer):
    """Tracer that stops at every convolution and pool, at spdify's own blocks and at the libraries' leaves."""

    def __init__(self, root_type: type[nn.Module] | None = None, closed: Collection[str] = ()) -> None:
        """Enter modules of `root_type` even where a library says not to: that is how a composite leaf is opened.

        Those at the paths `closed` are not entered.
        """
        modules, functions, spaces = _library_leaves()
        super().__init__(autowrap_modules=(sys.modules["math"], *spaces), autowrap_functions=functions)
        self._leaves = tuple(kind for kind in modules if kind is not root_type and kind is not nn.Sequential)
        self._closed = frozenset(closed)
        self.last_path = ""
        #: Path of the innermost module in whose own code the trace failed.
        self.failed_path = ""
        #: Tensors that the traced code reads from modules, by id: torch.fx shows parameters as nodes, of a buffer only
        #: the constants that are computed from it.
        self.read: set[int] = set()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401 - as fx has it
        """Note every tensor that is read from a module; leaves are not entered, so theirs are read from outside."""
        if isinstance(attr_val, Tensor):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - as fx has it
        """Note where the trace fails."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_path = self.failed_path or self.path_of_module(m)
            raise

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Stand for what a node gives."""
        parts = _count_of_parts(node)
        return super().proxy(node) if parts is None else _Parts(node, self, parts)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Say whether to stop at `m`."""
        self.last_path = module_qualified_name
        return (
            module_operator(m) is not None
            or module_qualified_name in self._closed
            or isinstance(m, NORMS)
            or type(m).__module__.startswith(BLOCKS_PACKAGE)
            or isinstance(m, self._leaves)
            or (super().is_leaf_module(m, module_qualified_name) and not isinstance(m, nn.DataParallel))
        )
