"""The first eye: torch.fx.

The model is traced on a copy without weights, with timm's and torchvision's lists of what not to enter; every convolution and
pool of `torch.nn`, subclasses too, is a leaf; composite leaves that hold such modules are opened in turn. Nothing is eliminated:
fx's dead-code elimination drops in-place operations.
"""

from __future__ import annotations

import operator as python_operator
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from spdify.errors import TraceError
from spdify.graph.operations import Operation
from spdify.graph.slices import SliceBook, steps_of_index
from spdify.graph.structure import fake_copy, fake_inputs
from spdify.graph.windows import FUNCTION_OPERATORS, function_geometry, module_geometry, module_operator
from spdify.records import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch._subclasses.fake_tensor import FakeTensorMode

    from spdify.records import Inputs, Mode

BLOCKS_PACKAGE = "spdify.blocks"


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
        modules += [kind for name in vision_ops.__all__ if isinstance(kind := getattr(vision_ops, name), type)]
    return tuple(modules), tuple(functions), tuple(spaces)


class _Entry(nn.Module):
    """Calls the model with exactly the inputs that were given; all other arguments keep their defaults."""

    def __init__(self, model: nn.Module, args: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._args, self._names = args, names

    def forward(self, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Run the model."""
        return self.model(*[args[i] for i in range(self._args)], **{name: kwargs[name] for name in self._names})


class SiteTracer(fx.Tracer):
    """Tracer that stops at every convolution and pool, at spdify's own blocks and at the libraries' leaves."""

    def __init__(self, root_type: type[nn.Module] | None = None) -> None:
        """Enter modules of `root_type` even where a library says not to: that is how a composite leaf is opened."""
        modules, functions, spaces = _library_leaves()
        super().__init__(autowrap_modules=(sys.modules["math"], *spaces), autowrap_functions=functions)
        self._leaves = tuple(kind for kind in modules if kind is not root_type and kind is not nn.Sequential)
        self.last_path = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Say whether to stop at `m`."""
        self.last_path = module_qualified_name
        return (
            module_operator(m) is not None
            or type(m).__module__.startswith(BLOCKS_PACKAGE)
            or isinstance(m, self._leaves)
            or super().is_leaf_module(m, module_qualified_name)
        )


@dataclass
class Trace:
    """What torch.fx saw.

    Attributes:
        operations: As in the census.
        unopened: Composite leaves that hold convolutions or pools and could not be traced: path to reason.
        reads: Paths of parameters and buffers that the graph reads directly (`get_attr`).
    """

    operations: list[Operation] = field(default_factory=list)
    unopened: dict[str, str] = field(default_factory=dict)
    reads: set[str] = field(default_factory=set)


class _Reader(fx.Interpreter):
    """Runs a traced graph on fake tensors and notes operators with their shapes."""

    def __init__(self, graph_module: fx.GraphModule, trace: Trace, slices: SliceBook, prefix: str, inside: str) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.trace, self.slices = trace, slices
        self._prefix, self._inside = prefix, inside
        self._node: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        """Keep the node at hand: its module stack names the owner of a functional call."""
        self._node = n
        return super().run_node(n)

    def _full(self, path: str) -> str:
        """Give the path in the user's model of a path in this graph."""
        own = path.removeprefix("model").removeprefix(".")
        return ".".join(part for part in (self._prefix, own) if part)

    def _owner(self) -> str:
        stack = self._node.meta.get("nn_module_stack", {}) if self._node is not None else {}
        return self._full(next(reversed(stack.values()))[0] if stack else "")

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Note what the graph reads."""
        self.trace.reads.add(self._full(target))
        return super().get_attr(target, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Note a called convolution or pool; open a composite leaf that holds some."""
        out = super().call_module(target, args, kwargs)
        module = self.fetch_attr(target)
        path = self._full(target)
        operator = module_operator(module)
        if operator is not None:
            x = args[0] if args else kwargs["input"]
            y = out[0] if isinstance(out, tuple) else out
            call = Call(input=tuple(x.shape), output=tuple(y.shape))
            geometry = module_geometry(module, operator, call.input, call.output)
            self._note(Operation(path, operator, type(module).__name__, True, geometry, call, inside=self._inside))
        elif _may_hold_sites(module):
            self._open(module, path, args, kwargs)
        return out

    def _open(self, module: nn.Module, path: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        try:
            _trace_into(self.trace, self.slices, module, (args, kwargs), prefix=path, inside=path)
        except TraceError as error:
            self.trace.unopened[path] = error.message

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Note a functional convolution or pool, and spatial slices."""
        out = super().call_function(target, args, kwargs)
        if target in FUNCTION_OPERATORS:
            operator, _ = FUNCTION_OPERATORS[target]
            x = args[0] if args else kwargs["input"]
            y = out[0] if isinstance(out, tuple) else out
            call = Call(input=tuple(x.shape), output=tuple(y.shape))
            geometry = function_geometry(target, args, kwargs, call.output)
            name = f"F.{operator}{geometry.dims}d"
            self._note(Operation(self._owner(), operator, name, False, geometry, call, inside=self._inside))
        elif target is python_operator.getitem and isinstance(args[0], Tensor):
            steps = steps_of_index(args[1], args[0].dim())
            if steps is not None and steps.is_spatial:
                source = self._node.args[0] if self._node is not None else None
                self.slices.add(source, self._owner(), steps, tuple(args[0].shape), self._inside)
        return out

    def _note(self, operation: Operation) -> None:
        if operation.operator != "conv" or any(s != 1 for s in operation.geometry.stride):
            self.trace.operations.append(operation)


def _may_hold_sites(module: nn.Module) -> bool:
    """Whether a leaf of the trace is a composite that may downsample inside (spdify's own blocks are known)."""
    own = type(module).__module__
    return not own.startswith(("torch.nn", BLOCKS_PACKAGE)) and any(
        module_operator(child) is not None for child in module.modules()
    )


def _trace_into(
    trace: Trace, slices: SliceBook, model: nn.Module, inputs: tuple[Any, Any], *, prefix: str = "", inside: str = ""
) -> None:
    args, kwargs = inputs
    entry = _Entry(model, len(args), tuple(kwargs))
    tracer = SiteTracer(root_type=type(model) if inside else None)
    try:
        graph = tracer.trace(entry)
    except Exception as error:
        where = tracer.last_path.removeprefix("model").removeprefix(".")
        msg = f"cannot trace {prefix or type(model).__name__}, near {where or 'its top'}: {error}"
        hint = "torch.fx must be able to follow forward: no branching on tensor values. Convert the part that it can follow."
        raise TraceError(msg, hint=hint) from error
    reader = _Reader(fx.GraphModule(tracer.root, graph), trace, slices, prefix, inside)
    try:
        reader.run(args, kwargs)
    except Exception as error:
        node = reader._node  # noqa: SLF001 - our own class
        msg = f"cannot run the trace of {prefix or type(model).__name__}, at {node}: {error}"
        raise TraceError(msg, hint="Check --input-size C,H,W and the model's own requirements.") from error


def trace_model(model: nn.Module, inputs: Inputs, *, mode: Mode, batch: int = 1) -> Trace:
    """Trace a model and note every operator that may shrink its input.

    Args:
        model: Not changed: a copy is traced, since some models keep what they see in caches.
        inputs: Shapes of the inputs.
        mode: `eval` or `train`.
        batch: First size of every input.

    Raises:
        TraceError: torch.fx cannot follow the model.
    """
    copied, fake_mode = fake_copy(model)
    copied.train(mode == "train")
    trace, slices = Trace(), SliceBook()
    with torch.no_grad(), _lenient(fake_mode):
        _trace_into(trace, slices, copied, fake_inputs(inputs, fake_mode, batch=batch))
    trace.operations += slices.operations()
    return trace


def _lenient(mode: FakeTensorMode) -> FakeTensorMode:
    """Run under the fake mode: constants that forward makes become fake like the rest."""
    return mode
