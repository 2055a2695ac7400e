"""The first eye: torch.fx.

The model is traced on a copy without weights, with timm's and torchvision's lists of what not to enter; every
convolution and pool of `torch.nn`, subclasses too, is a leaf; composite leaves that hold such modules are opened in
turn. Nothing is eliminated: fx's dead-code elimination drops in-place operations.

A module inside whose own code cannot be followed (a detector's head makes anchors from sizes) is closed, and the trace
tried again around it. Where that is no help (detectors branch on what they find), one forward pass shows what the
module calls, and each called module is traced on its own with the inputs that it gets there, and so on down.
"""

from __future__ import annotations

import operator as python_operator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list

from spdify.errors import TraceError
from spdify.graph.adapters import module_geometry, module_operator
from spdify.graph.module_calls import SeenCall, record_calls
from spdify.graph.operations import Operation
from spdify.graph.slices import FoundSlice, SliceBook, Steps, steps_of_index
from spdify.graph.structure import NEEDS_DATA, fake_copy, fake_inputs, lazy_copy, sharing_copy, zero_inputs
from spdify.graph.tracer import BLOCKS_PACKAGE, Entry, SiteTracer
from spdify.graph.windows import FUNCTION_OPERATORS, LP_POOL, function_geometry
from spdify.records import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spdify.records import Inputs, Mode, Shape

#: Modules to close before a whole trace is given up: each costs a trace anew.
MOST_CLOSED = 32

_Runnable: TypeAlias = "tuple[nn.Module, tuple[list[Tensor], dict[str, Tensor]], AbstractContextManager[Any]]"


@dataclass(frozen=True)
class Flow:
    """The data flow of what was traced in one piece: the model, or a module of it.

    Attributes:
        path: Of the traced module in the user's model.
        graph: torch.fx's graph.
        root: Holds the modules that the graph calls, as fake or real copies of the user's.
        shapes: Of every node that gives a tensor, its shape.
        firsts: By path in the user's model, the first path of the module there, where it is registered at several. What
            is traced in pieces sees only the paths of the piece.
    """

    path: str
    graph: fx.Graph
    root: nn.Module
    shapes: dict[fx.Node, Shape]
    firsts: Mapping[str, str] = field(default_factory=dict)

    def full_path(self, target: str) -> str:
        """Give the path in the user's model of a path in the graph, the first one of a shared module."""
        return first_path(_full_path(self.path, target), self.firsts)

    def module(self, target: str) -> nn.Module:
        """Give the module that a node of the graph calls."""
        return self.root.get_submodule(target)


def first_paths(model: nn.Module) -> dict[str, str]:
    """Give, for every further path of a module that is registered at several, the first one."""
    seen: dict[nn.Module, str] = {}
    paths = ((path, seen.setdefault(module, path)) for path, module in model.named_modules(remove_duplicate=False))
    return {path: first for path, first in paths if path != first}


def first_path(path: str, firsts: Mapping[str, str]) -> str:
    """Give the first path of a module, or of a tensor of one."""
    if path in firsts:
        return firsts[path]
    owner, dot, name = path.rpartition(".")
    return f"{firsts[owner]}{dot}{name}" if owner in firsts else path


def _full_path(path: str, target: str) -> str:
    own = target.removeprefix("model").removeprefix(".")
    return ".".join(part for part in (path, own) if part)


@dataclass
class Trace:
    """What torch.fx saw.

    Attributes:
        operations: As in the census.
        unopened: Modules whose own code could not be traced, in part or at all: path to reason.
        followed: Paths of the modules that were traced on their own; the empty one where it is the whole model.
        reads: Paths of parameters that the graph reads directly (`get_attr`), and of buffers that the code reads.
        flows: The data flow of each piece that was traced whole.
    """

    operations: list[Operation] = field(default_factory=list)
    unopened: dict[str, str] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    flows: list[Flow] = field(default_factory=list)

    def absorb(self, part: Trace) -> None:
        """Add what was seen of a part of the model."""
        self.operations += part.operations
        self.unopened.update({path: why for path, why in part.unopened.items() if path not in self.unopened})
        self.followed |= part.followed
        self.reads |= part.reads
        self.flows += part.flows

    def with_first_paths(self, firsts: Mapping[str, str]) -> Self:
        """Call every module by its first path, in place."""
        self.operations = [
            replace(op, owner=first_path(op.owner, firsts), inside=first_path(op.inside, firsts))
            for op in self.operations
        ]
        self.unopened = {first_path(path, firsts): why for path, why in self.unopened.items()}
        self.followed = {first_path(path, firsts) for path in self.followed}
        self.reads = {first_path(path, firsts) for path in self.reads}
        self.flows = [replace(flow, firsts=firsts) for flow in self.flows]
        return self

    def closed_scope(self, owner: str) -> str | None:
        """Give the module whose untraced code runs what `owner` runs; None where the trace saw all of it."""
        path = owner
        while True:
            if path in self.unopened:
                return path
            if path in self.followed or not path:
                return None
            path = path.rpartition(".")[0]


class _Reader(fx.Interpreter):
    """Runs a traced graph on fake tensors and notes operators with their shapes."""

    def __init__(self, graph_module: fx.GraphModule, path: str, inside: str, closed: Mapping[str, TraceError]) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self._closed = closed
        self.trace, self.slices = Trace(), SliceBook()
        self._path, self._inside = path, inside
        self._node: fx.Node | None = None
        self._steps: dict[int, tuple[object, Steps, Shape]] = {}
        self._kept: list[Tensor] = []
        self.shapes: dict[fx.Node, Shape] = {}

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give plain lists and dicts, as the traced code itself would: some functions change those they are given."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(_plain(arg) for arg in args), {name: _plain(arg) for name, arg in kwargs.items()}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        """Keep the node at hand: its module stack names the owner of a functional call."""
        self._node = n
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result

    def _full(self, path: str) -> str:
        """Give the path in the user's model of a path in this graph."""
        return _full_path(self._path, path)

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
        if (why := self._closed.get(target)) is not None:
            self.trace.absorb(_trace_calls_of(module, (args, kwargs), path, why, inside=self._inside))
            return out
        operator = module_operator(module)
        if operator is not None:
            x = args[0] if args else kwargs.get("input", kwargs.get("x"))  # as torch and timm name it
            y = out[0] if isinstance(out, tuple) else out
            call = Call(input=tuple(x.shape), output=tuple(y.shape))
            geometry = module_geometry(module, operator, call.input, call.output)
            self._note(Operation(path, operator, type(module).__name__, True, geometry, call, inside=self._inside))
        elif isinstance(module, LP_POOL):  # torch.nn's other modules hold none
            call = Call(input=tuple(args[0].shape), output=tuple(out.shape))
            geometry = module_geometry(module, "avg_pool", call.input, call.output)
            self._note(Operation(path, "avg_pool", type(module).__name__, False, geometry, call, inside=self._inside))
        elif _may_hold_sites(module):
            self._open(module, path, args, kwargs)
        return out

    def _open(self, module: nn.Module, path: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        try:
            self.trace.absorb(_trace_into(module, (args, kwargs), path=path, inside=path))
        except TraceError as error:
            self.trace.absorb(_trace_calls_of(module, (args, kwargs), path, error, inside=path))

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
            self._note_slice(args[0], args[1], out)
        return out

    def _note_slice(self, x: Tensor, index: object, out: Tensor) -> None:
        """Note a strided slice, joined with one along a single axis that made `x`: x[:, :, ::2][..., ::2]."""
        found = steps_of_index(index, tuple(x.shape))
        if found is None:
            return
        steps, shape, whole = found
        source: object = (id(x), shape)
        if whole and id(x) in self._steps and not self._steps[id(x)][1].is_spatial:
            source, earlier, shape = self._steps[id(x)]
            steps = earlier.joined(steps)
        if whole:
            self._steps[id(out)] = (source, steps, shape)
        self._kept += [x, out]  # keeps the ids from being given to other tensors
        if steps.is_spatial:
            self.slices.add(source, FoundSlice(self._owner(), steps, shape, self._inside))

    def _note(self, operation: Operation) -> None:
        if operation.operator not in {"conv", "blur_pool"} or any(s != 1 for s in operation.geometry.stride):
            self.trace.operations.append(operation)


def _may_hold_sites(module: nn.Module) -> bool:
    """Whether a leaf of the trace is a composite that may downsample inside (spdify's own blocks are known)."""
    own = type(module).__module__
    return not own.startswith(("torch.nn", BLOCKS_PACKAGE)) and any(
        module_operator(child) is not None for child in module.modules()
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - arguments of any kind
    """Copy fx's immutable lists and dicts into plain ones, however they are nested."""
    if isinstance(value, immutable_list):
        return [_plain(item) for item in value]
    if type(value) is tuple:
        return tuple(_plain(item) for item in value)
    if isinstance(value, immutable_dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _trace_into(model: nn.Module, inputs: tuple[Any, Any], *, path: str = "", inside: str = "") -> Trace:
    """Trace one module, which is at `path` in the user's model and, if that is not empty, a part of `inside`."""
    entry = Entry(model, *inputs)
    closed: dict[str, TraceError] = {}
    while True:
        tracer = SiteTracer(type(model) if inside else None, closed)
        try:
            graph = tracer.trace(entry)
            break
        except NEEDS_DATA:
            raise
        except Exception as error:
            why = _cannot_trace(tracer, path, type(model).__name__, error)
            if tracer.failed_path in {"", "model", *closed} or len(closed) == MOST_CLOSED:
                raise why from error
            closed[tracer.failed_path] = why
    reader = _Reader(fx.GraphModule(tracer.root, graph), path, inside, closed)
    try:
        reader.run(entry.tensors)
    except NEEDS_DATA:
        raise
    except Exception as error:
        node = reader._node  # noqa: SLF001 - our own class
        msg = f"cannot run the trace of {path or type(model).__name__}, at {node}: {error}"
        raise TraceError(msg, hint="Check --input-size C,H,W and the model's own requirements.") from error
    reader.trace.operations += reader.slices.operations()
    reader.trace.reads |= {_full_path(path, name) for name, b in entry.named_buffers() if id(b) in tracer.read}
    reader.trace.followed.add(path)
    reader.trace.flows.append(Flow(path, graph, tracer.root, reader.shapes))
    return reader.trace


def _cannot_trace(tracer: SiteTracer, path: str, title: str, error: Exception) -> TraceError:
    """Say in which module's own code a trace failed, and after which call."""
    failed, last = (at.removeprefix("model").removeprefix(".") for at in (tracer.failed_path, tracer.last_path))
    where = last.removeprefix(failed).removeprefix(".") if last.startswith(f"{failed}.") else last
    full = ".".join(filter(None, (path, failed)))
    return TraceError(f"cannot trace {full or title}, near {where or 'its top'}: {error}")


def _trace_calls_of(module: nn.Module, inputs: tuple[Any, Any], path: str, why: TraceError, *, inside: str) -> Trace:
    """Trace what a composite leaf calls, where it cannot be opened itself."""
    try:
        call = record_calls(module, inputs, path=path)
    except TraceError:
        # The attempt to trace it may have left something in it: then the census alone sees what is in there.
        return Trace(unopened={path: why.message})
    return _trace_children(call, why, inside=inside)


def _trace_children(call: SeenCall, why: TraceError, *, inside: str = "") -> Trace:
    """Trace every module that a call runs directly, each on its own."""
    trace = Trace()
    if type(call.module) is not nn.Sequential:  # has no code but its calls
        trace.unopened[call.path] = why.message
    for child in call.children:
        if not _is_plain_leaf(child.module):
            trace.absorb(_trace_call(child, inside))
    return trace


def _trace_call(call: SeenCall, inside: str) -> Trace:
    try:
        # A copy: a trace that fails may leave its own objects in caches, where the next one would meet them.
        return _trace_into(sharing_copy(call.module), call.inputs, path=call.path, inside=inside)
    except TraceError as error:
        return _trace_children(call, error, inside=inside)


def _is_plain_leaf(module: nn.Module) -> bool:
    """Whether a module of `torch.nn` can hold no site: an activation, a norm, a linear layer."""
    plain = type(module).__module__.startswith("torch.nn") and next(module.children(), None) is None
    return plain and module_operator(module) is None and not isinstance(module, LP_POOL)


def trace_model(model: nn.Module, inputs: Inputs, *, mode: Mode, batch: int = 1) -> Trace:
    """Trace a model and note every operator that may shrink its input.

    Args:
        model: Not changed: a copy is traced, since some models keep what they see in caches.
        inputs: Shapes of the inputs.
        mode: `eval` or `train`.
        batch: First size of every input.

    Returns:
        What was seen; `unopened` names the modules whose own code torch.fx could not follow.

    Raises:
        TraceError: The model does not run on these inputs.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            trace = _trace_copy(lambda: _fake(model, inputs, batch), mode)
        except NEEDS_DATA:
            trace = _trace_copy(lambda: _real(model, inputs, batch), mode)
    firsts = first_paths(model)
    return trace.with_first_paths(firsts) if firsts else trace


def _fake(model: nn.Module, inputs: Inputs, batch: int) -> _Runnable:
    copied, fake_mode = fake_copy(model)
    return copied, fake_inputs(inputs, fake_mode, batch=batch), fake_mode


def _real(model: nn.Module, inputs: Inputs, batch: int) -> _Runnable:
    return lazy_copy(model).cpu(), zero_inputs(inputs, batch=batch), nullcontext()


def _trace_copy(make: Callable[[], _Runnable], mode: Mode) -> Trace:
    """Trace a copy of the model whole, or, where that fails, what another copy calls.

    Another, since a trace that fails may leave its own objects in the model's caches.
    """
    model, inputs, surroundings = make()
    model.train(mode == "train")
    with torch.no_grad():
        try:
            with surroundings:
                return _trace_into(model, inputs)
        except TraceError as error:
            why = error
        model, inputs, surroundings = make()
        model.train(mode == "train")
        with surroundings:
            try:
                call = record_calls(model, inputs)
            except TraceError:
                raise why from None
            return _trace_children(call, why)
