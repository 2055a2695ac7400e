"""From an nn.Module to an ONNX program in memory."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import onnx
import torch

from spdify.errors import ExportError
from spdify.exporting.examples import BATCH_AXIS, SIZE_AXES
from spdify.exporting.native import TRANSLATIONS
from spdify.exporting.snapshot import preserved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.export import ExportedProgram
    from torch.onnx import ONNXProgram

    from spdify.exporting.examples import Examples

LONGEST_REASON = 240
# File and line of the code that was traced: paths of one machine, and a third of a small file.
_TRACE_KEY = "pkg.torch.onnx.stack_trace"


def require_exportable(model: nn.Module) -> None:
    """Insist on eval mode and on float32 on the CPU: that is what is compared.

    Raises:
        ExportError: The model is in another condition.
    """
    name = type(model).__name__
    if model.training:
        raise ExportError(f"cannot export {name}: expected eval mode, got train mode.", hint="Call `.eval()` first.")
    for path, tensor in model.state_dict().items():
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise ExportError(
                f"cannot export {name}: expected float32 on the CPU, got {tensor.dtype} on {tensor.device} (`{path}`).",
                hint='Call `.float().to("cpu")` first.',
            )


def trace(model: nn.Module, examples: Examples, *, batch: int, dynamic: bool, sizes: bool = False) -> ExportedProgram:
    """Trace `model` by `torch.export`.

    Args:
        model: In eval mode; left as it was.
        examples: Inputs to trace with.
        batch: Batch size to trace at.
        dynamic: Whether the batch axis stays open.
        sizes: Whether height and width stay open as well.

    Raises:
        ExportError: The model cannot be traced, or not so.
    """
    example = examples.at(batch)
    try:
        # On some faults torch.export prints the whole graph so far on stderr.
        with preserved(model), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            shapes = examples.dynamic_shapes(model, example, sizes=sizes) if dynamic else None
            return torch.export.export(model, example.args, example.kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as fault:
        # Whatever the model's code and torch.export may raise.
        raise ExportError(reason(fault)) from fault


def export_program(  # noqa: PLR0913 - what may stay open
    model: nn.Module, examples: Examples, *, opset: int, batch: int, dynamic: bool, sizes: bool = False
) -> ONNXProgram:
    """Trace `model` and translate it; the program is not optimised, so that its initializers are the state dict's.

    The two steps of `torch.onnx.export` are taken apart: as one, it answers a batch that the model fixes by tracing
    again with that batch, without a word, and a model that cannot be traced at all by tracing it in a second way.

    Args:
        model: In eval mode on the CPU; left as it was.
        examples: Inputs to trace with.
        opset: Version of the operator set.
        batch: Batch size to trace at.
        dynamic: Whether the batch axis stays open.
        sizes: Whether height and width stay open as well.

    Raises:
        ExportError: The model cannot be traced or translated, or an axis comes out fixed where it should be open.
    """
    traced = trace(model, examples, batch=batch, dynamic=dynamic, sizes=sizes)
    try:
        program = torch.onnx.export(
            traced, dynamo=True, optimize=False, opset_version=opset, verbose=False,
            custom_translation_table=TRANSLATIONS,
        )  # fmt: skip
    except Exception as fault:
        # Whatever the translations and the version converter may raise.
        raise ExportError(reason(fault)) from fault
    if program is None or program.model.opset_imports.get("") != opset:
        raise ExportError(f"the exporter does not write opset {opset} for this model")
    _require_known(program, opset)
    if dynamic:
        _name_axes(program, examples.batched(), sizes=sizes)
    return program


def _require_known(program: ONNXProgram, opset: int) -> None:
    """Insist that the opset has every operator of ONNX's own that a program has: translations do not look at it.

    Raises:
        ExportError: It lacks one, which came later.
    """
    for name in sorted({node.op_type for node in program.model.graph.all_nodes() if not node.domain}):
        try:
            onnx.defs.get_schema(name, opset, "")
        except onnx.defs.SchemaError as fault:
            known = onnx.defs.get_all_schemas_with_history()
            since = min(schema.since_version for schema in known if (schema.name, schema.domain) == (name, ""))
            raise ExportError(f"opset {opset} has no {name}: ask for opset {since} or a newer one") from fault


def optimise(program: ONNXProgram) -> None:
    """Fold constants and batch norm, in place, and drop what names the files of this machine.

    Raises:
        ExportError: The optimiser fails on the program.
    """
    try:
        program.optimize()
    except Exception as fault:
        raise ExportError(f"the optimiser of onnxscript fails: {reason(fault)}") from fault
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop(_TRACE_KEY, None)


def reason(fault: BaseException) -> str:
    """Give the root cause of a fault in one line: exporters wrap it in advice of their own, several times over."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    lines = [line.strip(" -") for line in str(fault).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Constraints violated"):
        lines = lines[1:]  # The next line says which one, and the value.
    text = f"{type(fault).__name__}: {lines[0]}" if lines else type(fault).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"


def _name_axes(program: ONNXProgram, batched: Sequence[bool], *, sizes: bool) -> None:
    """Call the open axes `batch`, `height` and `width`; tracing numbers them.

    Raises:
        ExportError: One that should be open came out fixed.
    """
    for value, open_axis in zip(program.model.graph.inputs, batched, strict=True):
        names = ({0: BATCH_AXIS} if open_axis else {}) | (dict(enumerate(SIZE_AXES, start=2)) if sizes else {})
        for position, name in names.items():
            axis = value.shape[position] if value.shape is not None else None
            if isinstance(axis, int):
                raise ExportError(f"the {name} of input `{value.name}` comes out fixed at {axis}")
            if axis is not None and axis.value != name:
                program.rename_axes({axis: name})
