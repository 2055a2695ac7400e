"""ONNX files of converted models, each compared with the PyTorch model before it bears its final name."""

from __future__ import annotations

from spdify.exporting.batch import BATCH_CHECK, SIZE_CHECK, fixed_size
from spdify.exporting.examples import Example, MakeInputs
from spdify.exporting.export import export_onnx, write_unchecked
from spdify.exporting.files import UNVERIFIED
from spdify.exporting.metadata import describe, described
from spdify.exporting.native import use_native
from spdify.exporting.options import HALF_TOLERANCE, OnnxOptions
from spdify.exporting.program import reason
from spdify.exporting.runtime import OnnxModel
from spdify.exporting.torch_files import export_pt2, export_python
from spdify.exporting.ultralytics_file import export_ultralytics

__all__ = [
    "BATCH_CHECK",
    "HALF_TOLERANCE",
    "SIZE_CHECK",
    "UNVERIFIED",
    "Example",
    "MakeInputs",
    "OnnxModel",
    "OnnxOptions",
    "describe",
    "described",
    "export_onnx",
    "export_pt2",
    "export_python",
    "export_ultralytics",
    "fixed_size",
    "reason",
    "use_native",
    "write_unchecked",
]
