"""Configurations of Ultralytics' networks: those of the package by name, and those of records, which anybody may write.

The package looks a layer's name up among all that its module knows, evaluates the text of an activation, and builds as
large as it is told. So of a record, only names of layers are let through, plain arguments, and sizes within bounds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from spdify.errors import SourceError
from spdify.sources.near_names import near_names
from spdify.sources.ultralytics_package import ultralytics

#: By task, as the package guesses it from a configuration.
CLASSES = {
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "classify": "ClassificationModel",
}
#: Layers of `ultralytics.nn.modules` that compute and do nothing else; `TorchVision` would fetch weights.
LAYERS = frozenset((
    "A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2PSA", "C2f", "C2fAttn", "C2fCIB",
    "C2fPSA", "C3", "C3Ghost", "C3TR", "C3k2", "C3x", "CBFuse", "CBLinear", "Classify", "Concat", "Conv", "Conv2",
    "ConvTranspose", "DWConv", "DWConvTranspose2d", "Detect", "ELAN1", "Focus", "GhostBottleneck", "GhostConv",
    "HGBlock", "HGStem", "OBB", "OBB26", "PSA", "Pose", "Pose26", "RepC3", "RepConv", "RepNCSPELAN4", "ResNetLayer",
    "SCDown", "SPP", "SPPELAN", "SPPF", "Segment", "Segment26", "v10Detect", "nn.Conv2d", "nn.ConvTranspose2d",
    "nn.Identity", "nn.MaxPool2d", "nn.Upsample", "nn.ZeroPad2d",
))  # fmt: skip
_FETCHING = "TorchVision"
_SCALES = "nsmlx"
_FAMILY = re.compile(rf"(yolo[a-z]?-?v?\d+)([{_SCALES}])(|-.*)")
_NUMBER = r"-?[0-9][0-9.]{0,9}|True|False"
_ACTIVATION = re.compile(rf"(torch\.)?nn\.[A-Za-z0-9]+\((([a-z_]+=)?({_NUMBER})(, ?([a-z_]+=)?({_NUMBER}))?)?\)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}")
MOST_CHARACTERS, MOST_LAYERS, MOST_REPEATS = 100_000, 500, 100
MOST_CLASSES, MOST_CHANNELS, LARGEST_FACTOR = 20_000, 8192, 4.0


def named_config(name: str) -> dict[str, Any]:
    """Read a configuration that comes with the package; `yolov5n` is `yolov5.yaml` at scale n.

    Args:
        name: Of the configuration, with its scale.

    Raises:
        SourceError: There is none, its size is open, or it is one that cannot be used.
    """
    files = {p.stem: p for p in Path(str(ultralytics().__file__)).parent.joinpath("cfg", "models").rglob("*.yaml")}
    found = _FAMILY.fullmatch(name)
    stem, scale = (found[1] + found[3], found[2]) if found and found[1] + found[3] in files else (name, "")
    if stem not in files:
        known = [f"ultralytics:{s}" for stem in files for s in (_scaled(stem, _SCALES) or [stem])]
        raise SourceError(f"Cannot find 'ultralytics:{name}'.", hint=near_names(f"ultralytics:{name}", known))
    config: dict[str, Any] = ultralytics("utils").YAML.load(files[stem])
    scales = "".join(config.get("scales") or ())
    if scale and scale not in scales:
        raise SourceError(
            f"Cannot build 'ultralytics:{name}': {stem} has no scale {scale}.", hint=f"It has {scales or 'none'}."
        )
    task_of(config)
    if not scale and len(scales) > 1:
        names = ", ".join(_scaled(stem, scales))
        raise SourceError(f"Cannot build 'ultralytics:{name}': its size is open.", hint=f"Write {names}.")
    if any(_FETCHING in str(layer[2]) for layer in (*config["backbone"], *config["head"])):
        raise SourceError(
            f"Cannot build 'ultralytics:{name}': its backbone is a network of torchvision, with weights to fetch.",
            hint="Convert that one: tv:NAME.",
        )
    return {**config, "scale": scale or scales, "yaml_file": f"{name}.yaml"}


def recorded_config(spec: str, text: object) -> dict[str, Any]:
    """Read a configuration from a record.

    Args:
        spec: For messages.
        text: JSON.

    Raises:
        SourceError: It is none, would have the package run or fetch something, or is out of bounds.
    """
    try:
        config = json.loads(text) if isinstance(text, str) and len(text) <= MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(part), list) for part in ("backbone", "head")):
        raise _refused(spec, "its record holds no configuration of Ultralytics")
    activation = config.get("activation")
    if activation is not None and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
        raise _refused(spec, f"its configuration would run {activation!r} as code")
    rows = [*config["backbone"], *config["head"]]
    bad = next((row for row in rows if not _is_layer(row)), None)
    if bad is not None or len(rows) > MOST_LAYERS:
        shown = f"has {len(rows)} layers" if bad is None else f"has a layer that is not known: {str(bad)[:80]}"
        raise _refused(spec, f"its configuration {shown}")
    if (name := _out_of_bounds(config)) is not None:
        raise _refused(spec, f"{name} of its configuration is out of bounds")
    return config


def _refused(spec: str, words: str) -> SourceError:
    hint = "It is damaged, or nothing that spdify wrote: convert the network again, or a factory of your own."
    return SourceError(f"Cannot build {spec}: {words}.", hint=hint)


def task_of(config: dict[str, Any]) -> str:
    """Give the task that a configuration is for.

    Raises:
        SourceError: It is one that cannot be used here.
    """
    task: str | None = ultralytics("nn.tasks").guess_model_task(config)
    if task not in CLASSES or any("RTDETR" in str(layer) or "World" in str(layer) for layer in config["head"]):
        raise SourceError(
            f"Cannot use this network of Ultralytics (task {task or 'unknown'}): it is no plain YOLO network.",
            hint=f"Known are YOLO networks that {', '.join(CLASSES)}.",
        )
    return task


def _scaled(stem: str, scales: str) -> list[str]:
    """Give the names of a configuration in all sizes; none where its name has no place for one."""
    found = re.fullmatch(r"(yolo[a-z]?-?v?\d+)(|-.*)", stem)
    return [f"{found[1]}{scale}{found[2]}" for scale in scales] if found else []


def _is_layer(row: object) -> bool:
    """Whether a row is `[from, repeats, name, arguments]` of a known layer, all plain and within bounds."""
    if not isinstance(row, list) or len(row) != 4:  # noqa: PLR2004 - as it says
        return False
    source, repeats, name, arguments = row
    sources = source if isinstance(source, list) else [source]
    return (
        all(_is_whole(value, MOST_LAYERS) for value in sources)
        and _is_whole(repeats, MOST_REPEATS)
        and isinstance(name, str)
        and name in LAYERS
        and isinstance(arguments, list)
        and all(map(_is_argument, arguments))
    )


def _is_argument(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= MOST_LAYERS and all(not isinstance(item, list) and _is_argument(item) for item in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or (isinstance(value, int | float) and abs(value) <= MOST_CHANNELS)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= most


def _out_of_bounds(config: dict[str, Any]) -> str | None:
    """Name what of a configuration beside its layers is too large, or not of its form; None where all is well."""
    for name, most in (("nc", MOST_CLASSES), ("channels", MOST_CHANNELS), ("ch", MOST_CHANNELS), ("reg_max", 256)):
        if config.get(name) is not None and not (_is_whole(config[name], most) and config[name] > 0):
            return name
    factors: dict[str, Any] = {name: config.get(name) for name in ("depth_multiple", "width_multiple")}
    scales = config.get("scales") or {}
    if not isinstance(scales, dict) or not all(isinstance(row, list) and len(row) == 3 for row in scales.values()):  # noqa: PLR2004
        return "scales"
    factors |= {f"scales.{key}": value for key, row in scales.items() for value in row[:2] if not _is_factor(value)}
    if not all(
        value is None or (isinstance(value, int | float) and value > 0) for row in scales.values() for value in row
    ):
        return "scales"
    shape = config.get("kpt_shape")
    if shape is not None and not (isinstance(shape, list) and all(_is_whole(value, 1000) for value in shape)):
        return "kpt_shape"
    return next((name for name, value in factors.items() if value is not None and not _is_factor(value)), None)


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST_FACTOR
