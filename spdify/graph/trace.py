"""The first eye: torch.fx.

The model is traced on a copy without weights, with timm's and torchvision's lists of what not to enter; every
convolution and pool of `torch.nn`, subclasses too, is a leaf; composite leaves that hold such modules are opened in
turn. Nothing is eliminated: fx's dead-code elimination drops in-place operations.
"""

from __future__ import annotations

import operator as python_operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from spdify.errors import TraceError
from spdify.graph.adapters import module_geometry, module_operator
from spdify.graph.operations import Operation
from spdify.graph.slices import SliceBook, Steps, steps_of_index
from spdify.graph.structure import NEEDS_DATA, detached_copy, fake_copy, fake_inputs, zero_inputs
from spdify.graph.tracer import BLOCKS_PACKAGE, Entry, SiteTracer
from spdify.graph.windows import FUNCTION_OPERATORS, LP_POOL, function_geometry
from spdify.records import Call

if TYPE_CHECKING:
    from spdify.records import Inputs, Mode, Shape


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

    def __init__(self, graph_module: fx.GraphModule, trace: Trace, slices: SliceBook, inside: str) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.trace, self.slices = trace, slices
        self._inside = inside
        self._node: fx.Node | None = None
        self._steps: dict[int, tuple[object, Steps, Shape]] = {}
        self._kept: list[Tensor] = []

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        """Keep the node at hand: its module stack names the owner of a functional call."""
        self._node = n
        return super().run_node(n)

    def _full(self, path: str) -> str:
        """Give the path in the user's model of a path in this graph."""
        own = path.removeprefix("model").removeprefix(".")
        return ".".join(part for part in (self._inside, own) if part)

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
            _trace_into(self.trace, self.slices, module, (args, kwargs), inside=path)
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
            self._note_slice(args[0], args[1], out)
        return out

    def _note_slice(self, x: Tensor, index: object, out: Tensor) -> None:
        """Note a strided slice, joined with those that made `x`: x[:, :, ::2][..., ::2]."""
        found = steps_of_index(index, tuple(x.shape))
        if found is None:
            return
        steps, shape, whole = found
        source: object = (id(x), shape)
        if whole and id(x) in self._steps:
            source, earlier, shape = self._steps[id(x)]
            steps = earlier.joined(steps)
        if whole:
            self._steps[id(out)] = (source, steps, shape)
        self._kept += [x, out]  # keeps the ids from being given to other tensors
        if steps.is_spatial:
            self.slices.add(source, self._owner(), steps, shape, self._inside)

    def _note(self, operation: Operation) -> None:
        if operation.operator not in {"conv", "blur_pool"} or any(s != 1 for s in operation.geometry.stride):
            self.trace.operations.append(operation)


def _may_hold_sites(module: nn.Module) -> bool:
    """Whether a leaf of the trace is a composite that may downsample inside (spdify's own blocks are known)."""
    own = type(module).__module__
    return not own.startswith(("torch.nn", BLOCKS_PACKAGE)) and any(
        module_operator(child) is not None for child in module.modules()
    )


def _trace_into(
    trace: Trace, slices: SliceBook, model: nn.Module, inputs: tuple[Any, Any], *, inside: str = ""
) -> None:
    args, kwargs = inputs
    entry = Entry(model, len(args), tuple(kwargs))
    tracer = SiteTracer(root_type=type(model) if inside else None)
    try:
        graph = tracer.trace(entry)
    except NEEDS_DATA:
        raise
    except Exception as error:
        where = tracer.last_path.removeprefix("model").removeprefix(".")
        msg = f"cannot trace {inside or type(model).__name__}, near {where or 'its top'}: {error}"
        hint = (
            "torch.fx must be able to follow forward: no branching on tensor values, no loops over them. Convert the "
            "part that it can follow and put it back: spdify.convert(net.backbone, example_input=x).model"
        )
        raise TraceError(msg, hint=hint) from error
    reader = _Reader(fx.GraphModule(tracer.root, graph), trace, slices, inside)
    try:
        reader.run(args, kwargs)
    except NEEDS_DATA:
        raise
    except Exception as error:
        node = reader._node  # noqa: SLF001 - our own class
        msg = f"cannot run the trace of {inside or type(model).__name__}, at {node}: {error}"
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
    with torch.random.fork_rng(devices=[]):
        try:
            copied, fake_mode = fake_copy(model)
            args = fake_inputs(inputs, fake_mode, batch=batch)
            with fake_mode:
                return _trace_copy(copied, args, mode)
        except NEEDS_DATA:
            return _trace_copy(detached_copy(model).cpu(), zero_inputs(inputs, batch=batch), mode)


def _trace_copy(model: nn.Module, inputs: tuple[Any, Any], mode: Mode) -> Trace:
    """Trace a model that is ours to change."""
    model.train(mode == "train")
    trace, slices = Trace(), SliceBook()
    with torch.no_grad():
        _trace_into(trace, slices, model, inputs)
    trace.operations += slices.operations()
    return trace
