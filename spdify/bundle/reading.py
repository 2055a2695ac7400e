"""Reading a bundle; nothing in it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from spdify.errors import BundleError, plain_bytes, require_plain
from spdify.records import BundleRecord, Record, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
PLAN_FILE = "spdify.json"
REPORT_FILE = "report.json"
CONFIG_FILE = "config.json"
SHARED_KEY = "shared"  # in the metadata of the weights: names of tensors that are stored under another name

MAX_RECORD_BYTES = 64 * 2**20  # a network of a thousand sites has 2 MiB; more is no record

MISSING = "A bundle is a folder that `spdify convert` wrote."
DAMAGED = "Convert the model again, or use the version of spdify that wrote the bundle."

RecordT = TypeVar("RecordT", bound=Record)
EntryT = TypeVar("EntryT")


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a folder that spdify wrote; false where that cannot be seen."""
    try:
        return (Path(path) / PLAN_FILE).is_file()
    except OSError:  # a model's name that is too long for a file's, or a folder that may not be read
        return False


def read_record(folder: Path) -> BundleRecord:
    """Read and validate `spdify.json`.

    Raises:
        BundleError: It is missing, or not what its schema says.
    """
    return read_json(folder / PLAN_FILE, BundleRecord, missing=MISSING, damaged=DAMAGED)


def read_report(folder: Path) -> Report:
    """Read and validate `report.json`.

    Raises:
        BundleError: It is missing, or not what its schema says.
    """
    return read_json(folder / REPORT_FILE, Report, missing=MISSING, damaged=DAMAGED)


def read_json(file: Path, kind: type[RecordT], *, missing: str, damaged: str) -> RecordT:
    """Read and validate a record from its file.

    Args:
        file: JSON, of at most 64 MiB.
        kind: What it holds.
        missing: What to do where it is not there.
        damaged: What to do where it is something else.

    Raises:
        BundleError: It is missing, or not what its schema says.
    """
    try:
        text = plain_bytes(file, MAX_RECORD_BYTES)
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror or error}", hint=missing) from error
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise BundleError(f"cannot read {file}: at {key}, {first['msg']}", hint=damaged) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the state dict.

    Raises:
        BundleError: The file is missing, truncated or damaged.
    """
    return _read(folder, lambda weights, name: weights.get_tensor(name))


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of the weights, and none of them.

    Raises:
        BundleError: The file is missing, truncated or damaged.
    """
    return _read(folder, lambda weights, name: tuple(weights.get_slice(name).get_shape()))


def _read(folder: Path, get: Callable[[Any, str], EntryT]) -> dict[str, EntryT]:
    """Read something of each tensor, by all of its names."""
    file = folder / WEIGHTS_FILE
    try:
        require_plain(file)
        with safe_open(file, framework="pt", device="cpu") as weights:
            metadata = weights.metadata() or {}
            found = {name: get(weights, name) for name in weights.keys()}  # noqa: SIM118 - no mapping
        shared = json.loads(metadata.get(SHARED_KEY, "{}"))
        return found | {name: found[kept] for name, kept in shared.items()}
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BundleError(
            f"cannot read {file}: {_reason(error)}", hint="The file is damaged or incomplete: copy or convert it again."
        ) from error


def _reason(error: Exception) -> str:
    """Give the words of a fault; where it comes from the names of shared tensors, its own words say nothing."""
    if isinstance(error, (SafetensorError, OSError)):
        return str(error)
    return f"its list of shared tensors is damaged ({type(error).__name__}: {error})"
