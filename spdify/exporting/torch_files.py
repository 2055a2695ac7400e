"""Exported programs of PyTorch: a `.pt2` archive, or a Python file with its weights; both read back and compared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from spdify.errors import ExportError
from spdify.exporting.batch import BATCH_CHECK, FIXED_BATCH, SIZE_CHECK, fixed_size
from spdify.exporting.comparison import compare
from spdify.exporting.examples import TRACED_BATCH, Examples, tensors_in
from spdify.exporting.program import reason, require_exportable, trace
from spdify.exporting.python_code import MODULE, WEIGHTS, python_code
from spdify.exporting.quiet import quiet
from spdify.exporting.runtime import reference_outputs
from spdify.exporting.sizes import BATCHES, other_sizes
from spdify.records import Check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn
    from torch.export import ExportedProgram

    from spdify.exporting.comparison import Array
    from spdify.exporting.examples import Example, MakeInputs
    from spdify.exporting.options import OnnxOptions

ARCHIVE = "model.pt2"


def export_pt2(
    model: nn.Module, folder: Path, *, make_inputs: MakeInputs, reference: nn.Module, options: OnnxOptions
) -> tuple[tuple[str, ...], list[Check]]:
    """Write `model` as `model.pt2`, which `torch.export.load` reads, and compare what is read with `reference`.

    Args:
        model: In eval mode, float32, on the CPU.
        folder: Where the file goes.
        make_inputs: Gives example inputs (args, kwargs) for a batch size.
        reference: The same function, by other code.
        options: Tolerance and seed, and whether height and width are to stay open.

    Returns:
        Names of the files, and the checks.

    Raises:
        ExportError: The model cannot be traced.
    """

    def write(program: ExportedProgram) -> Callable[..., Any]:
        torch.export.save(program, folder / ARCHIVE, extra_files=dict(options.metadata))
        return torch.export.load(folder / ARCHIVE).module()

    checks = _export(model, make_inputs, reference, options, write)
    return (ARCHIVE,), checks


def export_python(  # noqa: PLR0913 - as for the other formats, and a title
    model: nn.Module, folder: Path, *, make_inputs: MakeInputs, reference: nn.Module, options: OnnxOptions, title: str
) -> tuple[tuple[str, ...], list[Check]]:
    """Write `model` as `model.py` and `weights.safetensors`, run the file, and compare it with `reference`.

    Args:
        model: In eval mode, float32, on the CPU.
        folder: Where the files go.
        make_inputs: Gives example inputs (args, kwargs) for a batch size.
        reference: The same function, by other code.
        options: Tolerance and seed, and whether height and width are to stay open.
        title: First line of the file.

    Returns:
        Names of the files, and the checks.

    Raises:
        ExportError: The model cannot be traced, or not be written in Python.
    """

    def write(program: ExportedProgram) -> Callable[..., Any]:
        text, tensors = python_code(program, title=title)
        (folder / MODULE).write_text(text, encoding="utf-8")
        save_file(tensors, folder / WEIGHTS)
        # Not imported: that would leave compiled code beside the file.
        module: dict[str, Any] = {"__name__": "model", "__file__": str(folder / MODULE)}
        exec(compile((folder / MODULE).read_text(encoding="utf-8"), MODULE, "exec"), module)  # noqa: S102 - just written
        network: Callable[..., Any] = module["load"](folder)
        return network

    checks = _export(model, make_inputs, reference, options, write)
    return (MODULE, WEIGHTS), checks


def _export(
    model: nn.Module,
    make_inputs: MakeInputs,
    reference: nn.Module,
    options: OnnxOptions,
    write: Callable[[ExportedProgram], Callable[..., Any]],
) -> list[Check]:
    """Trace, write, read back and compare."""
    require_exportable(model)
    examples = Examples(make_inputs, options.seed)
    with quiet():
        others = other_sizes(examples, reference) if options.dynamic_size else []
        program, checks = _traced(model, examples, sizes=bool(others))
        if options.dynamic_size and not others:
            checks.append(fixed_size())
        written = write(program)
        opened = {check.name for check in checks if check.outcome == "passed"}
        expected = partial(reference_outputs, reference)
        runs = [
            (f"batch {batch}", examples.at(batch)) for batch in (BATCHES if BATCH_CHECK in opened else (FIXED_BATCH,))
        ]
        if SIZE_CHECK in opened:
            runs += [(run.name.removeprefix("onnx "), run.example) for run in others]
        for name, example in runs:
            wanted, found = expected(example), _outputs(written, example)
            if [array.dtype for array in wanted] != [array.dtype for array in found]:
                raise ExportError("what was written gives other dtypes than the network")
            checks.append(compare(name, wanted, found, options.tolerance))
    return checks


def _traced(model: nn.Module, examples: Examples, *, sizes: bool) -> tuple[ExportedProgram, list[Check]]:
    """Trace with as much open as the network lets stay open, and say what is."""
    passed = Check(name=BATCH_CHECK, outcome="passed")
    checks: list[Check] = []
    if sizes:
        try:
            program = trace(model, examples, batch=TRACED_BATCH, dynamic=True, sizes=True)
        except ExportError as fault:
            checks.append(fixed_size(fault.message))
        else:
            return program, [passed, Check(name=SIZE_CHECK, outcome="passed")]
    try:
        return trace(model, examples, batch=TRACED_BATCH, dynamic=True), [passed, *checks]
    except ExportError as fault:
        why = f"batch fixed at {FIXED_BATCH}: {fault.message}"
        program = trace(model, examples, batch=FIXED_BATCH, dynamic=False)
        return program, [Check(name=BATCH_CHECK, outcome="not run", detail=why), *checks]


def _outputs(network: Callable[..., Any], example: Example) -> list[Array]:
    """Run what was read back."""
    try:
        with torch.no_grad():
            found = network(*example.args, **example.kwargs)
    except Exception as fault:
        raise ExportError(f"what was written does not run: {reason(fault)}") from fault
    return [tensor.detach().numpy() for tensor in tensors_in(found)]
