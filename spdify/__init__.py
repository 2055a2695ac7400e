"""Rewrite the downsampling of a trained CNN into SPD-Conv without losing what it has learned, and prove it.

The names below are imported when first used: importing spdify alone does not import PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spdify.benchmarking import tune
    from spdify.datasets import DataOptions
    from spdify.engine import apply, fuse, map_weights
    from spdify.errors import SpdifyError
    from spdify.pipeline import Conversion, ConversionSettings, convert, inspect, load, report
    from spdify.pipeline.benchmarking import BenchSettings, bench
    from spdify.pipeline.calibrating import calibrate
    from spdify.pipeline.evaluating import evaluate
    from spdify.pipeline.exporting import ExportSettings, export
    from spdify.pipeline.finetuning import finetune, resume
    from spdify.pipeline.run_settings import TrainingSettings
    from spdify.training import make_recipe

__version__ = "0.1.0"

_HOMES = {
    "Conversion": "spdify.pipeline",
    "ConversionSettings": "spdify.pipeline",
    "DataOptions": "spdify.datasets",
    "SpdifyError": "spdify.errors",
    "TrainingSettings": "spdify.pipeline.run_settings",
    "apply": "spdify.engine",
    "calibrate": "spdify.pipeline.calibrating",
    "convert": "spdify.pipeline",
    "evaluate": "spdify.pipeline.evaluating",
    "BenchSettings": "spdify.pipeline.benchmarking",
    "bench": "spdify.pipeline.benchmarking",
    "ExportSettings": "spdify.pipeline.exporting",
    "export": "spdify.pipeline.exporting",
    "finetune": "spdify.pipeline.finetuning",
    "fuse": "spdify.engine",
    "inspect": "spdify.pipeline",
    "load": "spdify.pipeline",
    "make_recipe": "spdify.training",
    "map_weights": "spdify.engine",
    "report": "spdify.pipeline",
    "resume": "spdify.pipeline.finetuning",
    "tune": "spdify.benchmarking",
}

__all__ = [
    "BenchSettings",
    "Conversion",
    "ConversionSettings",
    "DataOptions",
    "ExportSettings",
    "SpdifyError",
    "TrainingSettings",
    "apply",
    "bench",
    "calibrate",
    "convert",
    "evaluate",
    "export",
    "finetune",
    "fuse",
    "inspect",
    "load",
    "make_recipe",
    "map_weights",
    "report",
    "resume",
    "tune",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    """Import a public name when it is first used."""
    if name not in _HOMES:
        msg = f"module 'spdify' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
