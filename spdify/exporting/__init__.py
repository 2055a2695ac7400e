"""ONNX files of converted models, each compared with the PyTorch model before it bears its final name."""

from __future__ import annotations

from spdify.exporting.examples import MakeInputs
from spdify.exporting.export import export_onnx
from spdify.exporting.files import UNVERIFIED
from spdify.exporting.metadata import describe, described
from spdify.exporting.options import OnnxOptions
from spdify.exporting.runtime import OnnxModel

__all__ = ["UNVERIFIED", "MakeInputs", "OnnxModel", "OnnxOptions", "describe", "described", "export_onnx"]
