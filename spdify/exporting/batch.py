"""Whether the batch size stays open in the ONNX file, and whose doing it is where it does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spdify.errors import ExportError
from spdify.exporting.examples import TRACED_BATCH
from spdify.exporting.program import export_program
from spdify.exporting.scripted import EXPORTER, export_scripted
from spdify.records import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.onnx import ONNXProgram

    from spdify.exporting.examples import Examples
    from spdify.exporting.options import OnnxOptions

BATCH_CHECK, SIZE_CHECK = "dynamic batch", "dynamic size"
#: A trace may leave a size open that no other number fits: the network itself is asked first.
ONE_SIZE = "the network itself takes no images, or none of the other sizes that were tried"
FIXED_BATCH = 1


@dataclass(frozen=True)
class Exported:
    """A program, not optimised, and what became of its batch axis.

    Attributes:
        program: The program.
        dynamic: Whether it takes any batch size; otherwise it takes 1.
        check: Whether conversion kept the batch open: failed where the original's batch is open and the converted
            model's is not.
        size: Whether height and width are open as well; None where that was not asked for.
        scripted: Whether the TorchScript exporter wrote it.
    """

    program: ONNXProgram
    dynamic: bool
    check: Check
    size: Check | None = None
    scripted: bool = False

    @property
    def dynamic_size(self) -> bool:
        """Whether height and width are open."""
        return self.size is not None and self.size.outcome == "passed"


def export_open(
    model: nn.Module, original: nn.Module | None, examples: Examples, opset: int, *, sizes: bool
) -> Exported:
    """Export with batch, height and width open where that is asked for; where it fails, as `export_batch` does.

    A size that comes out fixed is no fault of the conversion: flattened maps and position embeddings fix it in the
    original too. The check says why.
    """
    if not sizes:
        return export_batch(model, original, examples, opset)
    try:
        program = export_program(model, examples, opset=opset, batch=TRACED_BATCH, dynamic=True, sizes=True)
    except ExportError as fault:
        return replace(export_batch(model, original, examples, opset), size=fixed_size(fault.message))
    passed = Check(name=BATCH_CHECK, outcome="passed")
    return Exported(program, dynamic=True, check=passed, size=Check(name=SIZE_CHECK, outcome="passed"))


def fixed_size(why: str = ONE_SIZE) -> Check:
    """Say that height and width stay what they are in the example, and why."""
    return Check(name=SIZE_CHECK, outcome="not run", detail=f"height and width are fixed: {why}")


def export_batch(model: nn.Module, original: nn.Module | None, examples: Examples, opset: int) -> Exported:
    """Export with an open batch; where that fails, with batch 1, and find out whether the original fails alike.

    Args:
        model: The converted model.
        original: The model before conversion, or None where there is none to ask.
        examples: Inputs for both.
        opset: Version of the operator set.

    Raises:
        ExportError: The model does not export with batch 1 either.
    """
    try:
        program = export_program(model, examples, opset=opset, batch=TRACED_BATCH, dynamic=True)
    except ExportError as fault:
        fixed = export_program(model, examples, opset=opset, batch=FIXED_BATCH, dynamic=False)
        return Exported(fixed, dynamic=False, check=_blame(original, examples, opset, fault.message))
    return Exported(program, dynamic=True, check=Check(name=BATCH_CHECK, outcome="passed"))


def export_as_it_runs(  # noqa: PLR0913 - as `export_open`, and why not so
    model: nn.Module,
    original: nn.Module | None,
    examples: Examples,
    options: OnnxOptions,
    *,
    weights: Mapping[str, Tensor],
    why: str,
) -> Exported:
    """Export by the TorchScript exporter, with batch 1 and one size, and say so.

    Args:
        model: The converted model.
        original: The model before conversion, or None where there is none to ask.
        examples: Inputs for both.
        options: Opset, and whether height and width were to stay open.
        weights: What the model runs with meanwhile: a detector should find something.
        why: Why torch.export does not take it.

    Raises:
        ExportError: This exporter fails too, or does not write the opset.
    """
    program = export_scripted(model, examples.at(FIXED_BATCH), opset=options.opset, weights=weights)
    blame = _blame(original, examples, options.opset, why)
    words = f"written by the {EXPORTER}, batch and size are fixed: control flow depends on data; {blame.detail}"
    size = fixed_size(f"the {EXPORTER} wrote the file") if options.dynamic_size else None
    check = blame.model_copy(update={"detail": words})
    return Exported(program, dynamic=False, check=check, size=size, scripted=True)


def _blame(original: nn.Module | None, examples: Examples, opset: int, why: str) -> Check:
    """Say whether the conversion (failed) or the original (nothing to hold the conversion to) fixes the batch."""
    if original is None:
        detail = f"batch fixed at {FIXED_BATCH}, and no original to tell whether conversion is the cause: {why}"
        return Check(name=BATCH_CHECK, outcome="not run", detail=detail)
    try:
        # All the way to ONNX: a batch that ends up in an attribute (CondConv's groups) traces but does not translate.
        export_program(original, examples, opset=opset, batch=TRACED_BATCH, dynamic=True)
    except ExportError as fault:
        detail = (
            f"batch fixed at {FIXED_BATCH}; the original does not export with an open batch either: {fault.message}"
        )
        return Check(name=BATCH_CHECK, outcome="not run", detail=detail)
    detail = f"the original exports with an open batch, the converted model does not: {why}"
    return Check(name=BATCH_CHECK, outcome="failed", detail=detail)
