"""The folder a conversion is saved to: weights, plan, report, ONNX; data and no code."""

from spdify.bundle.folder import check_output, staged_folder
from spdify.bundle.places import check_file, write_text
from spdify.bundle.reading import PLAN_FILE, is_bundle, read_json, read_record, read_report, read_shapes, read_weights
from spdify.bundle.writing import write_bundle

__all__ = [
    "PLAN_FILE",
    "check_file",
    "check_output",
    "is_bundle",
    "read_json",
    "read_record",
    "read_report",
    "read_shapes",
    "read_weights",
    "staged_folder",
    "write_bundle",
    "write_text",
]
