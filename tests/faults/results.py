"""Results compared: bit for bit, but for what measures time and memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from spdify.zoo.store import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.trials import Outcome

#: Figures of time and memory, and the working directory.
MEASURED = {"seconds", "images_per_second", "peak_memory_bytes", "wall_seconds", "data_folder"}
#: They show those figures among the others: it is enough that they are there.
SHOWN = {".html", ".log"}
SPEEDS = re.compile(r"(,[^,\n]*){2}$", re.MULTILINE)  # the last two columns of results.csv


def differences(first: Path, second: Path) -> list[str]:
    """Say in which files two folders differ; what is still being written is not looked at."""
    names = [{str(path.relative_to(folder)) for path in _files(folder)} for folder in (first, second)]
    found = [f"{name} is in one only" for name in sorted(names[0] ^ names[1])]
    return found + [name for name in sorted(names[0] & names[1]) if _content(first / name) != _content(second / name)]


def _files(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".spdify.") for part in path.relative_to(folder).parts)
    )


def _content(file: Path) -> object:
    """Give what a file says, without what is measured."""
    if file.suffix == ".json":
        return _timeless(json.loads(file.read_text(encoding="utf-8")))
    if file.suffix == ".safetensors":
        return _tensors(file)
    if file.suffix == ".csv":
        return SPEEDS.sub("", file.read_text(encoding="utf-8"))
    return file.stat().st_size > 0 if file.suffix in SHOWN else file.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in MEASURED}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _tensors(file: Path) -> dict[str, object]:
    with safe_open(file, framework="pt") as opened:
        bits = {name: _bits(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118 - no mapping
        metadata = dict(opened.metadata() or {})
    past = _timeless(json.loads(metadata.pop("history", "null")))
    return {**bits, "metadata": metadata, "history": past}


def _bits(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def line_differences(first: Path, second: Path) -> tuple[Outcome, str] | None:
    """Say how the lines of two sweeps differ; None where they find the same."""
    found, others = _lines(first), _lines(second)
    names = Counter(name for name, _ in others)
    if twice := sorted(name for name, count in names.items() if count > 1):
        return "doubled", ", ".join(twice)
    if missing := sorted({name for name, _ in found} - set(names)):
        return "lost", ", ".join(missing)
    other = [name for name, finding in others if (name, finding) not in found]
    return ("wrong", ", ".join(other)) if other else None


def _lines(folder: Path) -> list[tuple[str, str]]:
    """Give what a sweep found by name, without what is measured."""
    run = RunFolder(folder)
    models = [(record.name, record.finding.model_dump_json()) for record in run.results()]
    exports = [(f"export {record.name}", record.model_dump(mode="json")) for record in run.exports()]
    return models + [(name, json.dumps(_timeless(record))) for name, record in exports]
