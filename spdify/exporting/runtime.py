"""An ONNX file in ONNX Runtime, and the checks that run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from torch.utils._pytree import tree_map_only

from spdify.exporting.comparison import compare
from spdify.exporting.examples import Example, tensors_in
from spdify.exporting.program import reason
from spdify.exporting.snapshot import preserved
from spdify.graph.structure import detached_copy
from spdify.records import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from spdify.exporting.detections import Judge

Array: TypeAlias = np.ndarray[Any, Any]

_FATAL_ONLY = 4
HALF = "tensor(float16)"


@dataclass(frozen=True)
class Run:
    """One run of both sides.

    Attributes:
        name: Name of the check.
        example: Inputs of both.
        reference: Gives PyTorch's outputs for them.
        judge: Compares both sides' outputs, as `compare` does.
    """

    name: str
    example: Example
    reference: Callable[[Example], list[Array]]
    judge: Judge = compare


class OnnxModel:
    """An ONNX file, ready to run on the CPU with ONNX Runtime's own optimisations, as users run it."""

    def __init__(self, path: Path, *, threads: int | None = None, device: str = "cpu") -> None:
        """Read the file at `path`; its external data, if any, lies beside it.

        Args:
            path: The file.
            threads: Of ONNX Runtime; as many as there are cores where None.
            device: `cpu`, or `cuda` for an ONNX Runtime that has it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = _FATAL_ONLY  # What goes wrong is raised as well.
        providers = ["CUDAExecutionProvider"] if device == "cuda" else []
        self._session = ort.InferenceSession(str(path), options, providers=[*providers, "CPUExecutionProvider"])

    @property
    def input_shapes(self) -> list[list[int | str]]:
        """Shape of each input; an axis that is open has a name."""
        return [list(value.shape) for value in self._session.get_inputs()]

    @property
    def metadata(self) -> dict[str, str]:
        """Texts that the file carries."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, example: Example) -> list[Array]:
        """Give all outputs, in order; float32 inputs and outputs of a float16 file are cast.

        Raises:
            ValueError: The file takes another number of inputs.
        """
        found = [np.asarray(out) for out in self._session.run(None, self._feeds(example))]
        return [out.astype(np.float32) if out.dtype == np.float16 else out for out in found]

    def runner(self, example: Example) -> Callable[[], object]:
        """Give a call that runs the file on an example, with nothing else in it: for timing."""
        feeds = self._feeds(example)
        return lambda: self._session.run(None, feeds)

    def _feeds(self, example: Example) -> dict[str, Array]:
        # By position: an input that is also an output changes its name on the way.
        taken = self._session.get_inputs()
        return {
            value.name: array.astype(np.float16) if value.type == HALF and array.dtype == np.float32 else array
            for value, array in zip(taken, example.arrays, strict=True)
        }


def reference_outputs(model: nn.Module, example: Example, weights: Mapping[str, Tensor] | None = None) -> list[Array]:
    """Run PyTorch, with other `weights` where given; the model is left as it was."""
    with preserved(model), torch.no_grad():
        if weights is None:
            out = model(*example.args, **example.kwargs)
        else:
            out = torch.func.functional_call(model, dict(weights), example.args, example.kwargs)
    return [tensor.detach().numpy() for tensor in tensors_in(out)]


def precise_outputs(model: nn.Module, example: Example, weights: Mapping[str, Tensor]) -> list[Array]:
    """Run a copy of the model in float64 with these weights."""

    def double(value: Tensor) -> Tensor:
        return value.double() if value.is_floating_point() else value

    precise = Example(*tree_map_only(torch.Tensor, double, (example.args, example.kwargs)))
    return reference_outputs(detached_copy(model).double(), precise, {k: double(v) for k, v in weights.items()})


def compare_file(path: Path, runs: Iterable[Run], tolerance: float) -> list[Check]:
    """Compare one file with PyTorch on several examples.

    Args:
        path: The ONNX file.
        runs: What to run it on.
        tolerance: Largest relative error that is taken for rounding.

    Returns:
        One check per run; a file that cannot be loaded or run fails it.
    """
    runs = tuple(runs)
    try:
        onnx_model = OnnxModel(path)
    except Exception as fault:  # noqa: BLE001 - onnxruntime derives its faults from Exception, one by one
        why = f"ONNX Runtime does not load the file: {reason(fault)}"
        return [Check(name=run.name, outcome="failed", tolerance=tolerance, detail=why) for run in runs]
    return [_compare_run(onnx_model, run, tolerance) for run in runs]


def _compare_run(onnx_model: OnnxModel, run: Run, tolerance: float) -> Check:
    """Run both sides once; PyTorch's own faults are not ours to catch."""
    expected = run.reference(run.example)
    try:
        found = onnx_model(run.example)
    except Exception as fault:  # noqa: BLE001 - see above
        why = f"ONNX Runtime does not run the file: {reason(fault)}"
        return Check(name=run.name, outcome="failed", tolerance=tolerance, detail=why)
    return run.judge(run.name, expected, found, tolerance)
