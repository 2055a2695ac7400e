"""Names and layout of ONNX files on the disk.

A file is born as `model.unverified.onnx` and becomes `model.onnx` when every check has passed, so that an interrupted
or failed comparison never leaves a file under the final name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnxscript import ir

from spdify.exporting.program import reason
from spdify.records import Check

if TYPE_CHECKING:
    from pathlib import Path

VERIFIED = "model.onnx"
UNVERIFIED = "model.unverified.onnx"
# A protobuf holds 2 GiB at most; above this, weights go to a file of their own beside it.
EXTERNAL_DATA_BYTES = 1_800_000_000


def clear(folder: Path) -> None:
    """Remove what an earlier export left, so that no stale file passes for this one's."""
    for name in (VERIFIED, UNVERIFIED):
        (folder / name).unlink(missing_ok=True)
        (folder / _data_name(name)).unlink(missing_ok=True)


def write(model: ir.Model, folder: Path) -> Path:
    """Write `model` as unverified, with its weights in a file beside it where they are too many for one file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / UNVERIFIED
    external = weight_bytes(model) > EXTERNAL_DATA_BYTES
    ir.save(model, path, external_data=_data_name(UNVERIFIED) if external else None)
    return path


def write_scratch(model: ir.Model, folder: Path) -> Path:
    """Write `model` for one reading: always with external data, which is written and mapped without further copies."""
    path = folder / "scratch.onnx"
    ir.save(model, path, external_data=_data_name(path.name))
    return path


def mark_verified(path: Path) -> Path:
    """Give the file its final name, and its external data the name that goes with it."""
    final = path.with_name(VERIFIED)
    data = path.with_name(_data_name(path.name))
    if data.exists():
        data.rename(final.with_name(_data_name(VERIFIED)))
        _point_to(path, _data_name(VERIFIED))
    path.rename(final)
    return final


def check_file(path: Path) -> Check:
    """Have the onnx package check the file against the standard."""
    try:
        onnx.checker.check_model(str(path))  # By path: only so does it take more than 2 GiB.
    except Exception as fault:  # noqa: BLE001 - the checker raises its own error, protobuf's and OS errors
        return Check(name="onnx checker", outcome="failed", detail=reason(fault))
    return Check(name="onnx checker", outcome="passed")


def weight_bytes(model: ir.Model) -> int:
    """Count the bytes of all initializers."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def _data_name(name: str) -> str:
    """Name of the external data of a file: the convention of `torch.onnx`."""
    return f"{name}.data"


def _point_to(path: Path, data_name: str) -> None:
    """Change, in the small file, the name of the large one; the large one is not read."""
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data_name
    onnx.save(proto, str(path))
