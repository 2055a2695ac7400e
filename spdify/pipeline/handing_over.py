"""Detectors, whose training is torchvision's and Ultralytics' own: who asks for it here is told how to go there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from torchvision.models import detection, list_models

from spdify.bundle import is_bundle, read_record
from spdify.detection import is_detector
from spdify.engine.ultralytics_hooks import is_ultralytics
from spdify.errors import RefusedError
from spdify.sources import parse_spec

if TYPE_CHECKING:
    from torch import nn


def refuse_other_training(model: str | Path | nn.Module) -> None:
    """Refuse to train what has a training of its own, before anything is built or read.

    Args:
        model: A source, a bundle's folder or a module.

    Raises:
        RefusedError: It is a detector of torchvision, or a network of Ultralytics' package; the hint says how it is
            trained there.
    """
    if isinstance(model, (str, Path)):
        folder = Path(model) if is_bundle(model) else None
        spec = read_record(folder).source.spec if folder is not None else str(model)
        kind, name = _kind_and_name(spec)
    else:
        folder, spec = None, type(model).__name__
        kind = "ultralytics" if is_ultralytics(model) else "torchvision" if is_detector(model) else ""
        name = spec if kind else ""
    if kind == "ultralytics":
        raise RefusedError(
            f"cannot train {spec} here: Ultralytics' networks have their own trainer", hint=_yolo(spec, folder)
        )
    if kind == "torchvision":
        raise RefusedError(
            f"cannot train {name} here: torchvision's detectors have their own training", hint=_vision(spec, folder)
        )


def _kind_and_name(spec: str) -> tuple[str, str]:
    """Give `ultralytics` or `torchvision` for what is trained there, and its name."""
    if spec.startswith("object:"):
        return "", ""
    parsed = parse_spec(spec)
    if parsed.kind == "torchvision" and parsed.target not in list_models(module=detection):
        return "", ""
    return (parsed.kind, parsed.target) if parsed.kind in {"ultralytics", "torchvision"} else ("", "")


def _convert(spec: str, folder: Path | None, name: str) -> tuple[str, str]:
    """Give the command that makes a bundle, where there is none, and the bundle's folder."""
    if folder is not None:
        return "", str(folder)
    made = f"{name}-spd"
    return f"spdify convert {shlex.quote(spec)} -o {made}\n", made


def _yolo(spec: str, folder: Path | None) -> str:
    command, bundle = _convert(spec, folder, "yolo")
    place = shlex.quote(f"{Path(bundle).name}-pt")
    export = f"spdify export {shlex.quote(bundle)} --format ultralytics -o {place}"
    return f"These lines hand it over:\n{command}{export}\nyolo train model={place}/model.pt data=DATA.yaml"


def _vision(spec: str, folder: Path | None) -> str:
    command, bundle = _convert(spec, folder, "detector")
    return (
        f"{command}In torchvision's references/detection/train.py put\nmodel = spdify.load({bundle!r})\n"
        "in the place of torchvision.models.get_model(...): all else stays."
    )
