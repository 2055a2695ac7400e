"""Reading a bundle; nothing in it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from spdify.errors import BundleError
from spdify.records import BundleRecord, Record, Report

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
PLAN_FILE = "spdify.json"
REPORT_FILE = "report.json"
CONFIG_FILE = "config.json"
SHARED_KEY = "shared"  # in the metadata of the weights: names of tensors that are stored under another name

RecordT = TypeVar("RecordT", bound=Record)


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a folder that spdify wrote."""
    return (Path(path) / PLAN_FILE).is_file()


def read_record(folder: Path) -> BundleRecord:
    """Read and validate `spdify.json`.

    Raises:
        BundleError: It is missing, or not what its schema says.
    """
    return _read(folder, PLAN_FILE, BundleRecord)


def read_report(folder: Path) -> Report:
    """Read and validate `report.json`.

    Raises:
        BundleError: It is missing, or not what its schema says.
    """
    return _read(folder, REPORT_FILE, Report)


def _read(folder: Path, name: str, kind: type[RecordT]) -> RecordT:
    file = folder / name
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BundleError(f"cannot read {file}: {reason}", hint="A bundle is a folder that `spdify convert` wrote.") from error
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise BundleError(
            f"cannot read {file}: at {key}, {first['msg']}",
            hint="Convert the model again, or use the version of spdify that wrote the bundle.",
        ) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the state dict.

    Raises:
        BundleError: The file is missing, truncated or damaged.
    """
    file = folder / WEIGHTS_FILE
    try:
        with safe_open(file, framework="pt", device="cpu") as weights:
            metadata = weights.metadata() or {}
            state: dict[str, Tensor] = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 - no mapping
        shared = json.loads(metadata.get(SHARED_KEY, "{}"))
        return state | {name: state[kept] for name, kept in shared.items()}
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(
            f"cannot read {file}: {error}", hint="The file is damaged or incomplete: copy or convert it again."
        ) from error
