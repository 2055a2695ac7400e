"""Models of Ultralytics' package: from its own configurations, or from a file that the user vouches for.

Its files (.pt) are pickled modules: reading one runs code from it. What a bundle keeps of one is its configuration,
plain data, from which the package builds the network again.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from spdify.errors import SourceError, UsageError
from spdify.records import Inputs, InputSpec, Preprocessing, Source
from spdify.sources.construction import construct
from spdify.sources.loaded_model import LoadedModel
from spdify.sources.near_names import near_names
from spdify.sources.ultralytics_package import ultralytics

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import ParamValue
    from spdify.sources.options import BuildOptions, KwargValue
    from spdify.sources.spec import ParsedSpec

#: By task, as the package guesses it from a configuration; `get_model_class` has no public name there.
CLASSES = {
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "classify": "ClassificationModel",
}
SIZE, CLASSIFIER_SIZE = 640, 224  # what the package trains with by default
SCALES = "nsmlx"
#: The package evaluates this text: nothing but a plain activation may stand there.
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Za-z0-9]+\((inplace=(True|False))?\)")
_FETCHING = "TorchVision"  # a layer that downloads weights
MAX_CONFIG = 100_000  # characters
COMPARED_SIZE = 64  # two of the largest strides


def build_ultralytics(parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model of Ultralytics' package.

    Args:
        parsed: A spec of kind `ultralytics`: the name of a configuration, or a file.
        options: What was asked for.

    Returns:
        The model with random weights, or those of the file.

    Raises:
        SourceError: The package is not installed, has no such model, or cannot build or read it.
        UsageError: A file that nobody vouches for, or options that do not go with it.
    """
    if options.pretrained:
        raise UsageError(
            f"Cannot fetch weights for {parsed.canonical}: Ultralytics' files run code when they are read.",
            hint="Get the file yourself and vouch for it: ultralytics:FILE.pt --trust-checkpoint.",
        )
    kwargs = options.constructor_kwargs()
    if others := sorted(kwargs.keys() - {"num_classes", "in_chans"}):
        raise UsageError(f"Cannot build {parsed.canonical} with {', '.join(others)}: its configuration says it all.")
    if parsed.is_file:
        model, kwargs = _from_file(parsed, options, kwargs)
    else:
        channels = kwargs.get("in_chans") or (options.input_size[0] if options.input_size else None)
        kwargs |= {"in_chans": channels} if channels not in {None, 3} else {}
        model = _construct(parsed.canonical, _named_config(parsed.target), kwargs, options.seed)
    channels = _channels(model)
    side = CLASSIFIER_SIZE if _task(model.yaml) == "classify" else SIZE
    size = options.input_size or (channels, side, side)
    if size[0] != channels:
        raise UsageError(f"Cannot run {parsed.canonical} on {size[0]} channels: it was made for {channels}.")
    source = Source(
        spec=parsed.canonical,
        # A file with a converted network cannot be built from a name; what it holds is handed over.
        kind="object" if getattr(model.yaml, "plans", ()) else "ultralytics",
        name=parsed.name.removesuffix(".pt"),
        kwargs=kwargs,
        num_classes=len(model.names),
        weights=Path(parsed.target).name if parsed.is_file else f"random, seed {options.seed}",
        # The package's own: letters the image in, and divides by 255.
        preprocessing=Preprocessing(input_size=size, mean=(0.0,) * channels, std=(1.0,) * channels),
    )
    return LoadedModel(model.eval(), source, Inputs(args=(InputSpec(shape=(1, *size)),)))


def ultralytics_structure(source: Source) -> nn.Module:
    """Build the structure of a model from its record, with random weights.

    Args:
        source: As `build_ultralytics` has recorded it.

    Raises:
        SourceError: The package is not installed, or cannot build it.
    """
    text = source.kwargs.get("config")
    config = _named_config(source.spec.partition(":")[2]) if text is None else _recorded_config(source.spec, text)
    model: nn.Module = _construct(source.spec, config, source.kwargs, seed=0)
    return model


def _construct(spec: str, config: dict[str, Any], kwargs: dict[str, KwargValue], seed: int) -> Any:  # noqa: ANN401
    """Build a network from its configuration; classes have the names that are recorded."""
    tasks = ultralytics("nn.tasks")
    build = getattr(tasks, CLASSES[_task(config)])
    arguments = {
        "cfg": config,
        "ch": kwargs.get("in_chans") or config.get("channels") or 3,
        "nc": kwargs.get("num_classes"),
    }
    model: Any = construct(partial(build, verbose=False), arguments, name=spec, seed=seed)
    if isinstance(names := kwargs.get("classes"), list):
        model.names = dict(enumerate(names))
    return model


def _task(config: dict[str, Any]) -> str:
    """Give the task that a configuration is for."""
    task: str = ultralytics("nn.tasks").guess_model_task(config)
    if task not in CLASSES:
        raise SourceError(
            f"Cannot use a network of Ultralytics for the task {task}.", hint=f"Known are {', '.join(CLASSES)}."
        )
    return task


def _channels(model: Any) -> int:  # noqa: ANN401 - a module with the package's attributes
    return int(model.yaml.get("channels", 3))


# Configurations of the package.


def _named_config(name: str) -> dict[str, Any]:
    """Read a configuration that comes with the package; `yolov5n` is `yolov5.yaml` at scale n."""
    files = {p.stem: p for p in Path(str(ultralytics().__file__)).parent.joinpath("cfg", "models").rglob("*.yaml")}
    family, scale = _family_and_scale(name)
    stem = family if family in files else name
    if stem not in files:
        known = [f"ultralytics:{s}" for stem in files for s in _scaled(stem)]
        raise SourceError(f"Cannot find 'ultralytics:{name}'.", hint=near_names(f"ultralytics:{name}", known))
    yaml = ultralytics("utils").YAML
    config: dict[str, Any] = yaml.load(files[stem])
    if scale and scale not in config.get("scales", {}):
        raise SourceError(
            f"Cannot build 'ultralytics:{name}': {stem} has no scale {scale}.",
            hint=f"It has {', '.join(config.get('scales', {})) or 'none'}.",
        )
    if not scale and config.get("scales"):
        raise SourceError(
            f"Cannot build 'ultralytics:{name}': its size is open.", hint=f"Write {', '.join(_scaled(stem))}."
        )
    return {**config, "scale": scale, "yaml_file": f"{name}.yaml"}


def _family_and_scale(name: str) -> tuple[str, str]:
    """Part `yolov5n-p6` into `yolov5-p6` and `n`."""
    found = re.fullmatch(rf"(yolo[a-z]?-?v?\d+)([{SCALES}])(.*)", name)
    return (found[1] + found[3], found[2]) if found else (name, "")


def _scaled(stem: str) -> list[str]:
    """Give the names of a configuration in all sizes."""
    return [re.sub(r"^(yolo[a-z]?-?v?\d+)", rf"\g<1>{scale}", stem) for scale in SCALES]


# Files.


def _from_file(
    parsed: ParsedSpec, options: BuildOptions, kwargs: dict[str, KwargValue]
) -> tuple[Any, dict[str, KwargValue]]:
    """Read a file; give the network and what it is built from again."""
    file = Path(parsed.target)
    if not file.is_file():
        raise SourceError(f"Cannot find the file {file}.")
    if kwargs:
        raise UsageError(f"Cannot build {parsed.canonical} with {', '.join(sorted(kwargs))}: the file has a network.")
    if not options.trust_checkpoint:
        raise UsageError(
            f"Cannot read {file}: it is a pickled module, and reading it runs code from it.",
            hint="Where you trust whoever made it, say so: --trust-checkpoint (in Python: trust_checkpoint=True).",
        )
    tasks = ultralytics("nn.tasks")
    try:
        model, _ = tasks.load_checkpoint(str(file))
    except Exception as error:
        raise SourceError(f"Cannot read {file}: {type(error).__name__}: {error}") from error
    if type(model).__name__ not in CLASSES.values() or not isinstance(getattr(model, "yaml", None), dict):
        raise SourceError(f"Cannot use {file}: expected a network of Ultralytics, got {type(model).__name__}.")
    names: list[ParamValue] = [str(model.names[i]) for i in sorted(model.names)]
    record: dict[str, KwargValue] = {"config": json.dumps(model.yaml, default=str), "classes": names}
    if getattr(model.yaml, "plans", ()):
        return model, record  # a converted network: it is as it is
    again = _construct(parsed.canonical, _recorded_config(parsed.canonical, record["config"]), record, seed=0)
    _require_same(again, model, file)
    return again, record


def _require_same(again: Any, model: Any, file: Path) -> None:  # noqa: ANN401 - modules with the package's attributes
    """Give a network that was built from a file's configuration the file's weights, and compare both.

    Raises:
        SourceError: They differ: the file is of another version of the package, or was changed by hand.
    """
    x = torch.rand(1, _channels(model), COMPARED_SIZE, COMPARED_SIZE, generator=torch.Generator().manual_seed(0))
    try:
        again.load_state_dict(model.state_dict())
        with torch.no_grad():
            pairs = zip(tree_leaves(again.eval()(x)), tree_leaves(model.eval()(x)), strict=True)
            same = all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[-1].strip()
        raise SourceError(
            f"Cannot use {file}: its network is not the one of its configuration: {why}",
            hint="Read it with the version of ultralytics that wrote it, or convert a factory of your own.",
        ) from error
    if not same:
        raise SourceError(
            f"Cannot use {file}: built from its configuration, its network computes something else",
            hint="Read it with the version of ultralytics that wrote it, or convert a factory of your own.",
        )


def _recorded_config(spec: str, text: object) -> dict[str, Any]:
    """Read a configuration from a record, which anybody may have written.

    Raises:
        SourceError: It is none, or would have the package run or fetch something.
    """
    try:
        config = json.loads(text) if isinstance(text, str) and len(text) <= MAX_CONFIG else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(part), list) for part in ("backbone", "head")):
        raise SourceError(f"Cannot build {spec}: its record holds no configuration of Ultralytics.")
    activation = config.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise SourceError(f"Cannot build {spec}: its configuration would run {activation!r} as code.")
    if any(_FETCHING in str(layer) for layer in (*config["backbone"], *config["head"])):
        raise SourceError(f"Cannot build {spec}: its configuration has a {_FETCHING} layer, which fetches weights.")
    return config
