"""From a converted model to an ONNX file that was compared with it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spdify.errors import ExportError
from spdify.exporting import files
from spdify.exporting.batch import FIXED_BATCH, export_as_it_runs, export_open, fixed_size
from spdify.exporting.comparison import compare
from spdify.exporting.detections import are_detections, judge_detections
from spdify.exporting.examples import Example, Examples, MakeInputs
from spdify.exporting.finding import spread_scores
from spdify.exporting.options import OnnxOptions
from spdify.exporting.program import export_program, optimise, reason, require_exportable
from spdify.exporting.quiet import quiet
from spdify.exporting.runtime import Run, compare_file, precise_outputs, reference_outputs
from spdify.exporting.scripted import EXPORTER, depends_on_data, export_scripted, require_detector
from spdify.exporting.sizes import BATCHES, other_sizes
from spdify.exporting.weights import WeightsError, tie, with_weights
from spdify.graph.structure import detached_copy
from spdify.records import Check, OnnxRecord
from spdify.verification.form_proof import trained_like

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn
    from torch.onnx import ONNXProgram

    from spdify.exporting.batch import Exported
    from spdify.exporting.comparison import Array
    from spdify.exporting.detections import Judge

PERTURBED = "onnx perturbed weights"
#: Of PyTorch's own rounding, what ONNX Runtime may be off by; above the second figure nothing is rounding.
ROUNDING_SHARE, STEEP_TOLERANCE = 10.0, 1e-3
HINT = "Leave the file out with `--no-onnx`, or try another `--opset`."


def export_onnx(  # noqa: PLR0913 - the contract with the pipeline
    model: nn.Module,
    folder: Path,
    *,
    make_inputs: MakeInputs,
    original: nn.Module | None = None,
    perturbed: Mapping[str, Tensor] | None = None,
    reference: nn.Module | None = None,
    options: OnnxOptions | None = None,
) -> OnnxRecord:
    """Write `model` to `folder` as ONNX and compare the file with it in ONNX Runtime.

    The file is `model.onnx` when no check failed and at least one comparison passed, else `model.unverified.onnx`;
    never both. Weights of more than 1.8 GB go to a file beside it (`….onnx.data`). The checks:

    - `dynamic batch`: the batch axis is open. Where it is not, batch 1 is written, and the check says whether the
      conversion is the cause (failed) or the original is no different (not run).
    - `onnx checker`: the file follows the standard.
    - `dynamic size`: height and width are open, where that is asked for; where they are not, why (not run).
    - `onnx batch 1`, `onnx batch 3`: largest error of any output, relative to its largest magnitude.
    - `onnx size H x W`: the same at sizes other than the one that was traced, where the size is open.
    - `onnx perturbed weights`: the same for the program with the `perturbed` weights in it. Not run where there are
      none, where they do not map onto the program, and where PyTorch's own outputs overflow with them.

    Args:
        model: The converted model: in eval mode, float32, on the CPU. Left in the same mode and state.
        folder: Where the file goes; created if need be. ONNX files of an earlier export there are removed.
        make_inputs: Gives example inputs (args, kwargs) for a batch size.
        original: The model before conversion, in the same condition; asked only when the batch comes out fixed.
        perturbed: Full state dict with weights that leave no branch of the network without effect.
        reference: What the file is compared with on the model's own weights: the same function in another form; the
            model itself where None.
        options: Opset, tolerance and seed; the defaults where None.

    Returns:
        Name of the file, opset, whether the batch is open, and the checks.

    Raises:
        ExportError: The model is not in the condition asked for, or cannot be traced or translated.
    """
    options = options or OnnxOptions()
    require_exportable(model)
    files.clear(folder)
    examples = traced = Examples(make_inputs, options.seed)
    reference = reference or model
    if options.half:
        traced = Examples(make_inputs, options.seed, torch.float16)
        model = detached_copy(model).half()
        original = None if original is None else detached_copy(original).half()
        perturbed = None if perturbed is None else {name: _half(tensor) for name, tensor in perturbed.items()}
    with quiet():
        try:
            return _Export(model, reference, folder, examples, traced, options).run(original, perturbed)
        except ExportError as fault:
            raise ExportError(f"cannot export {type(model).__name__} to ONNX: {fault.message}", hint=HINT) from fault


def write_unchecked(model: nn.Module, folder: Path, *, make_inputs: MakeInputs, batch: int, opset: int) -> Path:
    """Write a network as ONNX of a fixed batch, to be timed: nothing is compared.

    Args:
        model: In eval mode, float32, on the CPU.
        folder: Where to.
        make_inputs: Gives example inputs (args, kwargs) for a batch size.
        batch: Batch size.
        opset: Version of the operator set.

    Raises:
        ExportError: The model cannot be traced or translated.
    """
    require_exportable(model)
    examples = Examples(make_inputs, 0)
    with quiet():
        try:
            program = export_program(model, examples, opset=opset, batch=batch, dynamic=False)
        except ExportError as fault:
            if not depends_on_data(fault):
                raise
            require_detector(model, examples.at(batch))
            program = export_scripted(model, examples.at(batch), opset=opset)
        _finish(program)
        folder.mkdir(parents=True, exist_ok=True)
        return files.write_scratch(program.model, folder)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class _Export:
    """One export: what its steps share."""

    model: nn.Module
    reference: nn.Module
    folder: Path
    examples: Examples
    traced: Examples
    options: OnnxOptions

    def run(self, original: nn.Module | None, perturbed: Mapping[str, Tensor] | None) -> OnnxRecord:
        """Export, write, compare, and name the file by the outcome."""
        others = other_sizes(self.examples, self.reference) if self.options.dynamic_size else []
        exported = self._exported(original, perturbed, sizes=bool(others))
        size = fixed_size() if self.options.dynamic_size and not others else exported.size
        # First, while the program is as translated.
        twin = self._perturbed_check(exported, perturbed)
        _finish(exported.program)
        exported.program.model.metadata_props.update(self.options.metadata)
        path = files.write(exported.program.model, self.folder)
        comparisons = [*self._batch_checks(path, exported), twin]
        if exported.dynamic_size:
            comparisons += compare_file(path, others, self.options.tolerance)
        checks = (exported.check, *filter(None, [size]), files.check_file(path), *comparisons)
        if _holds(checks, comparisons):
            path = files.mark_verified(path)
        return OnnxRecord(
            file=path.name,
            opset=self.options.opset,
            dynamic_batch=exported.dynamic,
            dynamic_size=exported.dynamic_size,
            note=_note(exported),
            checks=checks,
        )

    def _exported(self, original: nn.Module | None, perturbed: Mapping[str, Tensor] | None, *, sizes: bool) -> Exported:
        """Export by torch.export; a detector, whose control flow depends on data, as it runs."""
        try:
            return export_open(self.model, original, self.traced, self.options.opset, sizes=sizes)
        except ExportError as fault:
            if not depends_on_data(fault) or self.options.half:
                raise
            why = fault.message
        try:
            require_detector(self.model, self.examples.at(FIXED_BATCH))
            weights = self._found_with(perturbed, self.examples.at(FIXED_BATCH))
            return export_as_it_runs(self.model, original, self.traced, self.options, weights=weights, why=why)
        except ExportError as fault:
            raise ExportError(f"torch.export: {why}; {fault.message}") from fault

    def _found_with(self, perturbed: Mapping[str, Tensor] | None, example: Example) -> dict[str, Tensor]:
        """Give weights with which a network that chooses finds much: the perturbed ones, its scores spread."""
        if perturbed is None:
            twin = trained_like(self.model, lambda _: (example.args, example.kwargs), seed=self.options.seed)
            perturbed = twin.state_dict()
        return spread_scores(self.model, perturbed, example)

    def _batch_checks(self, path: Path, exported: Exported) -> list[Check]:
        """Compare on the model's own weights; at batch 1 only where the file takes no other."""
        batches = BATCHES if exported.dynamic else (FIXED_BATCH,)
        torch_model = partial(reference_outputs, self.reference)
        runs = [
            Run(f"onnx batch {batch}", example, torch_model, self._judge(exported, self.reference, example))
            for batch in batches
            for example in [self.examples.at(batch)]
        ]
        checks = compare_file(path, runs, self.options.tolerance)
        why = f"the file takes batch {FIXED_BATCH} only"
        rest = [Check(name=f"onnx batch {b}", outcome="not run", detail=why) for b in BATCHES if b not in batches]
        return checks + rest

    def _perturbed_check(self, exported: Exported, perturbed: Mapping[str, Tensor] | None) -> Check:
        """Compare on other weights, in a copy of the program."""
        if exported.scripted:
            # Spread on the image that is compared: on another one, small maps give logits far outside.
            perturbed = self._found_with(perturbed, self.traced.other())
        if perturbed is None:
            return Check(name=PERTURBED, outcome="not run", detail="no perturbed weights were given")
        try:
            weights = tie(self.model, perturbed)
            program = with_weights(exported.program, self.model, weights)
        except WeightsError as fault:
            return Check(name=PERTURBED, outcome="not run", detail=str(fault))
        example = self.traced.at(BATCHES[-1] if exported.dynamic else FIXED_BATCH)
        if exported.scripted:
            example = self.traced.other()  # than the one that was run to write the file: no number may stem from it
        try:
            expected = reference_outputs(self.model, example, weights)
        except RuntimeError as fault:
            if not self.options.half:
                raise
            return Check(name=PERTURBED, outcome="not run", detail=f"PyTorch has no float16 here: {reason(fault)}")
        if not all(np.isfinite(out).all() for out in expected):
            detail = "PyTorch's own outputs are not finite with the perturbed weights"
            return Check(name=PERTURBED, outcome="not run", detail=detail)
        judge = self._judge(exported, self.model, example, weights)
        check = self._run_scratch(program, Run(PERTURBED, example, lambda _: expected, judge))
        if judge is not compare:
            return check
        return self._excused(check, example, expected, weights)

    def _judge(
        self, exported: Exported, model: nn.Module, example: Example, weights: Mapping[str, Tensor] | None = None
    ) -> Judge:
        """Give what compares outputs: of one image's detections, the sets."""
        names = [str(value.name) for value in exported.program.model.graph.outputs]
        if exported.dynamic or not are_detections(names):
            return compare
        return judge_detections(names, lambda: precise_outputs(model, example, weights or model.state_dict()))

    def _excused(self, check: Check, example: Example, expected: list[Array], weights: Mapping[str, Tensor]) -> Check:
        """Take a difference for rounding where PyTorch's own, from float64 to float32, is nearly as large.

        With random norms a deep network may be so steep that float32 itself is off by more than the tolerance.
        """
        if check.outcome != "failed" or check.value is None or check.value > STEEP_TOLERANCE:
            return check
        try:
            precise = precise_outputs(self.model, example, weights)
        except Exception:  # noqa: BLE001 - a model that does not run in float64 shows no more
            return check
        rounding = compare(PERTURBED, precise, expected, self.options.tolerance).value or 0.0
        if check.value > ROUNDING_SHARE * rounding:
            return check
        detail = f"float32 alone moves PyTorch's own output by {rounding:.0e} with these weights"
        tolerance = ROUNDING_SHARE * rounding
        return check.model_copy(update={"outcome": "passed", "tolerance": tolerance, "detail": detail})

    def _run_scratch(self, program: ONNXProgram, run: Run) -> Check:
        """Optimise the copy as the real one will be, and run it from a file that is gone afterwards."""
        _finish(program)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".onnx-") as scratch:
            return compare_file(files.write_scratch(program.model, Path(scratch)), [run], self.options.tolerance)[0]


def _finish(program: ONNXProgram) -> None:
    """Optimise a program of torch.export, in place.

    The TorchScript exporter's stays as it is: the optimiser of onnxscript leaves branches and loops in a wrong order;
    ONNX Runtime folds constants and norms as it loads the file.
    """
    if program.exported_program is not None:
        optimise(program)


def _note(exported: Exported) -> str:
    if exported.scripted:
        return f"takes batch {FIXED_BATCH} of one size only; written by the {EXPORTER}"
    return "" if exported.dynamic else f"takes batch {FIXED_BATCH} only"


def _holds(checks: Iterable[Check], comparisons: Iterable[Check]) -> bool:
    """Tell whether nothing failed and something was in fact compared."""
    return all(c.outcome != "failed" for c in checks) and any(c.outcome == "passed" for c in comparisons)
