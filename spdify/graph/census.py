"""The second eye: a real forward pass, watched at the operator level.

Every aten convolution, pool and strided slice is noted with the module that runs it; on the way the cost of each
operator is counted, multiply-accumulates by PyTorch's own formulas (`torch.utils.flop_counter`) and one for deformable
convolutions, which it lacks.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from spdify.errors import TraceError
from spdify.graph.adapters import module_operator
from spdify.graph.calls import CallPlace, NoPlaceError, find_place
from spdify.graph.operations import Operation
from spdify.graph.owners import ModuleCall, OwnerStack
from spdify.graph.shrinking import WATCHED, ShrinkingBook
from spdify.graph.slices import FoundSlice, SliceBook, Steps
from spdify.graph.structure import NEEDS_DATA, fake_copy, fake_inputs, lazy_copy, zero_inputs
from spdify.graph.windows import geometry_of, per_axis
from spdify.records import Call

if TYPE_CHECKING:
    from spdify.graph.operations import SeenOperator
    from spdify.graph.shrinking import Shrinking
    from spdify.records import Inputs, Mode

aten = torch.ops.aten
WINDOWS: tuple[tuple[SeenOperator, tuple[str, ...], tuple[Any, ...]], ...] = (
    (
        "max_pool",
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
        (aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.max_pool1d, aten.max_pool2d, aten.max_pool3d),
    ),
    (
        "avg_pool",
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
        (aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d),
    ),
    (
        "adaptive_pool",
        (),
        (
            aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d, aten.adaptive_avg_pool1d,  # noqa: SLF001 - aten names
            aten.adaptive_max_pool2d, aten.adaptive_max_pool3d,
        ),
    ),
)  # fmt: skip
#: Operators with the names of their arguments after the input (and, for a convolution, weight and bias).
POOLS: dict[Any, tuple[SeenOperator, tuple[str, ...]]] = {
    op: (operator, names) for operator, names, ops in WINDOWS for op in ops
}

#: torchvision's operator, which PyTorch has no formula for.
DEFORM_CONV = "torchvision::deform_conv2d"


@dataclass(frozen=True)
class _Stepped:
    """A strided view: of which tensor, by which steps, taken by which expression, and what was noted of it."""

    source: int
    steps: Steps
    shape: tuple[int, ...]
    place: CallPlace | None = None
    obstacle: str = ""
    found: FoundSlice | None = None


@dataclass
class Census:
    """What a forward pass ran.

    Attributes:
        operations: Convolutions with a stride, pools and spatial slices, in the order in which they ran.
        shrinking: Other ways of shrinking a map, which are no sites.
        macs: Multiply-accumulates by owner path.
        activation_bytes: Bytes of operator outputs (views and in-place results not counted) by owner path.
        plain_convs: Owner and operation of functional convolutions with stride 1.
        calls: What was called, by path, in the order of the first calls.
    """

    operations: list[Operation] = field(default_factory=list)
    shrinking: list[Shrinking] = field(default_factory=list)
    macs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    activation_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    plain_convs: set[tuple[str, str]] = field(default_factory=set)
    calls: dict[str, ModuleCall] = field(default_factory=dict)

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of the whole pass."""
        return sum(self.macs.values())


class CensusMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Dispatch mode that fills a `Census`."""

    def __init__(self, owners: OwnerStack) -> None:
        """Count for the module that `owners` says is running."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.census = Census()
        self.slices = SliceBook()
        self.shrinking = ShrinkingBook()
        self._owners = owners
        self._steps: dict[int, _Stepped] = {}
        self._kept: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the operator and note it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket  # noqa: SLF001 - as torch.utils.flop_counter does
        self._count(packet, args, kwargs, out)
        if self._kept and func._schema.is_mutable:  # noqa: SLF001 - as above
            self._note_writes(func, args, kwargs)
        if self._owners.in_opaque_block:
            return out
        if packet is aten.convolution:
            self._note_conv(args, out)
        elif packet in POOLS:
            self._note_pool(packet, args, kwargs, out)
        elif packet is aten.slice:
            self._note_slice(args, kwargs, out)
        elif packet in WATCHED and not self._owners.in_block:
            self.shrinking.note(packet, args, kwargs, out, self._owners.current[0])
        return out

    def _count(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:  # noqa: ANN401
        owner, _ = self._owners.current
        if macs := operator_macs(packet, args, kwargs, out):
            self.census.macs[owner] += macs
        inputs = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}  # noqa: SLF001
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in inputs:  # noqa: SLF001
                self.census.activation_bytes[owner] += tensor.numel() * tensor.element_size()

    def _note_writes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401 - an operator
        """Note the memory that an operator writes to; slices of it were taken before."""
        arguments = func._schema.arguments  # noqa: SLF001 - it says what is written to
        given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
        for argument in arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(given.get(argument.name)):
                    if isinstance(tensor, Tensor):
                        self.slices.write(tensor.untyped_storage()._cdata)  # noqa: SLF001 - as in _count

    def _note_conv(self, args: tuple[Any, ...], out: Tensor) -> None:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args
        if transposed:
            return
        if all(s == 1 for s in stride):
            self._note_plain_conv()
            return
        dims = weight.dim() - 2
        geometry = geometry_of(
            "conv", dims, tuple(x.shape), tuple(out.shape), kernel_size=weight.shape[2:], stride=stride,
            padding=padding, dilation=dilation, groups=groups, bias=bias is not None,
        )  # fmt: skip
        self._note("conv", geometry, x, out)

    def _note_pool(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:  # noqa: ANN401
        operator, names = POOLS[packet]
        x = args[0]
        y = out[0] if isinstance(out, (tuple, list)) else out
        window = dict(zip(names, args[1:], strict=False)) | {k: v for k, v in kwargs.items() if k in names}
        digit = next(int(c) for c in packet._qualified_op_name if c in "123")  # noqa: SLF001
        if "stride" in window and not window["stride"]:
            window["stride"] = per_axis(window["kernel_size"], digit)
        self._note(operator, geometry_of(operator, digit, tuple(x.shape), tuple(y.shape), **window), x, y)

    def _note(self, operator: SeenOperator, geometry: Any, x: Tensor, y: Tensor) -> None:  # noqa: ANN401
        owner, module = self._owners.current
        call = Call(input=tuple(x.shape), output=tuple(y.shape))
        own = module_operator(module)
        called = own == operator or (own, operator) == ("blur_pool", "conv")  # a blur is a convolution to PyTorch
        operator = own if called and own is not None else operator
        operation = Operation(owner, operator, type(module).__name__, called, geometry, call)
        if not called:
            place, obstacle = self._place()
            operation = replace(operation, place=place, obstacle=obstacle)
            if place is not None and place.operation.rpartition(":")[0].endswith("1d"):
                operation = _along_one_axis(operation)
        self.census.operations.append(operation)

    def _place(self) -> tuple[CallPlace | None, str]:
        """Find the expression behind the operator that is running, or say why there is none."""
        try:
            return find_place(self._owners.current[1]), ""
        except NoPlaceError as error:
            return None, str(error)

    def _note_plain_conv(self) -> None:
        owner, module = self._owners.current
        if module_operator(module) not in {"conv", "blur_pool"}:
            place, _ = self._place()
            if place is not None:
                self.census.plain_convs.add((owner, place.operation))

    def _note_slice(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        bound = dict(zip(("x", "dim", "start", "end", "step"), args, strict=False)) | kwargs
        x, axis, step = bound["x"], bound.get("dim", 0), bound.get("step", 1)
        known = self._steps.get(id(x), _Stepped(id(x), Steps(()), tuple(x.shape)))
        if step == 1 and x.shape != out.shape:
            return
        self._kept += [x, out]  # keeps the ids from being given to other tensors
        if step == 1:
            self._steps[id(out)] = known
            return
        axis, start = axis % x.dim(), bound.get("start") or 0
        place, obstacle = self._place()
        if known.steps.is_spatial and (known.place != place or axis <= known.steps.axes[-1][0]):
            known = _Stepped(id(x), Steps(()), tuple(x.shape))  # another slice, of what the first one gives
        steps = known.steps.then(axis, start + x.shape[axis] if start < 0 else start, step)
        if known.steps.axes and known.place != place:
            obstacle = "several expressions step over the same tensor in turn"
        elif known.found is not None:  # x[:, :, ::2, ::2, ::2] comes axis by axis
            self.slices.drop(known.source, known.found)
            obstacle = known.obstacle or obstacle
        found = FoundSlice(
            self._owners.current[0], steps, known.shape, place=place, obstacle=obstacle,
            storage=out.untyped_storage()._cdata,  # noqa: SLF001 - as in _count
        )  # fmt: skip
        self._steps[id(out)] = _Stepped(
            known.source, steps, known.shape, place, obstacle, found if steps.is_spatial else None
        )
        if steps.is_spatial:
            self.slices.add(known.source, found)


def _along_one_axis(operation: Operation) -> Operation:
    """Undo what PyTorch makes of a pool along one axis where it runs: one along two, the first of size 1."""
    geometry, call = operation.geometry, operation.call
    if geometry.dims == 1:
        return operation
    last = {name: getattr(geometry, name)[-1:] for name in ("kernel", "stride", "padding", "dilation")}
    flat = Call(input=(*call.input[:-2], call.input[-1]), output=(*call.output[:-2], call.output[-1]))
    return replace(operation, geometry=geometry.model_copy(update=last), call=flat)


def operator_macs(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:  # noqa: ANN401 - any
    """Count the multiply-accumulates of one operator; a deformable convolution's as those of an ordinary one.

    No interpolation is counted, that of its positions neither.
    """
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
    return out.numel() * args[1][0].numel() if is_deformable(packet) else 0


def is_deformable(packet: Any) -> bool:  # noqa: ANN401 - as above
    """Whether an operator is torchvision's deformable convolution; by name, since it need not be loaded."""
    return bool(packet._qualified_op_name == DEFORM_CONV)  # noqa: SLF001 - as for the pools


def take_census(model: nn.Module, inputs: Inputs, *, mode: Mode, batch: int = 1) -> Census:
    """Run one forward pass and note every operator that may shrink its input.

    Runs on fake tensors, which cost no memory and no arithmetic; with real ones where the control flow needs data.

    Args:
        model: Not changed: a copy runs.
        inputs: Shapes of the inputs.
        mode: `eval` or `train`.
        batch: First size of every input.

    Raises:
        TraceError: The forward pass fails, or a part of the model is compiled.
    """
    _require_source(model)
    with torch.random.fork_rng(devices=[]):
        try:
            return _run_census(model, inputs, mode=mode, batch=batch, fake=True)
        except NEEDS_DATA:
            return _run_census(model, inputs, mode=mode, batch=batch, fake=False)


def _require_source(model: nn.Module) -> None:
    """Raise `TraceError` where a module is compiled code: it takes no hooks, and cannot be changed."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = path or "the model itself"
            msg = f"cannot look into {type(model).__name__}: {where} is compiled by torch.jit"
            raise TraceError(msg, hint="Give the model before it is compiled, in Python.")


def _run_census(model: nn.Module, inputs: Inputs, *, mode: Mode, batch: int, fake: bool) -> Census:
    with ExitStack() as stack:
        if fake:
            copied, fake_mode = fake_copy(model)
            args, kwargs = fake_inputs(inputs, fake_mode, batch=batch)
            stack.enter_context(fake_mode)
        else:
            copied = lazy_copy(model).cpu()
            args, kwargs = zero_inputs(inputs, batch=batch)
        copied.train(mode == "train")
        owners = OwnerStack(copied)
        counting = CensusMode(owners)
        stack.callback(owners.remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(counting)
        try:
            copied(*args, **kwargs)
        except NEEDS_DATA:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(a.shape)) for a in [*args, *kwargs.values()])
            where = owners.failed_at or "the top"
            msg = f"cannot run {type(model).__name__} on {shapes} in {mode} mode, at {where}: {error}"
            raise TraceError(msg, hint="Check --input-size C,H,W and the model's own requirements.") from error
    census = counting.census
    census.operations += counting.slices.operations()
    census.shrinking = counting.shrinking.found
    census.calls = owners.calls
    return census
