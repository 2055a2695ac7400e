"""Models of Ultralytics' package: from its own configurations, or from a file that the user vouches for.

Its files (.pt) are pickled modules: reading one runs code from it. What a bundle keeps of one is its configuration,
plain data, from which the package builds the network again.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from spdify.errors import SourceError, UsageError
from spdify.records import Inputs, InputSpec, Preprocessing, Source
from spdify.sources.construction import construct
from spdify.sources.loaded_model import LoadedModel
from spdify.sources.ultralytics_config import (
    CLASSES,
    MOST_CHANNELS,
    MOST_CLASSES,
    named_config,
    recorded_config,
    task_of,
)
from spdify.sources.ultralytics_package import ultralytics

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import ParamValue
    from spdify.sources.options import BuildOptions, KwargValue
    from spdify.sources.spec import ParsedSpec

SIZE, CLASSIFIER_SIZE = 640, 224  # what the package trains with by default
COMPARED_SIZE = 64  # two of the largest strides
_OTHER_VERSION = "Read it with the version of ultralytics that wrote it, or convert a factory of your own."


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
        model = _construct(parsed.canonical, named_config(parsed.target), kwargs, options.seed)
    channels = _channels(model)
    side = CLASSIFIER_SIZE if task_of(model.yaml) == "classify" else SIZE
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
    config = named_config(source.spec.partition(":")[2]) if text is None else recorded_config(source.spec, text)
    model: nn.Module = _construct(source.spec, config, source.kwargs, seed=0)
    return model


def _construct(spec: str, config: dict[str, Any], kwargs: dict[str, KwargValue], seed: int) -> Any:  # noqa: ANN401
    """Build a network from its configuration; classes have the names that are recorded."""
    build = getattr(ultralytics("nn.tasks"), CLASSES[task_of(config)])
    channels, classes = kwargs.get("in_chans") or config.get("channels") or 3, kwargs.get("num_classes")
    for what, value, most in (("channels", channels, MOST_CHANNELS), ("classes", classes, MOST_CLASSES)):
        if value is not None and not (isinstance(value, int) and 0 < value <= most):
            raise SourceError(f"Cannot build {spec} for {value!r} {what}: expected 1 to {most}.")
    arguments = {"cfg": config, "ch": channels, "nc": classes}
    model: Any = construct(partial(build, verbose=False), arguments, name=spec, seed=seed)
    if (names := kwargs.get("classes")) is not None:
        if not isinstance(names, list) or len(names) != len(model.names):
            raise SourceError(
                f"Cannot build {spec}: expected the names of its {len(model.names)} classes, got {names!r}."
            )
        model.names = dict(enumerate(map(str, names)))
    return model


def _channels(model: Any) -> int:  # noqa: ANN401 - a module with the package's attributes
    return int(model.yaml.get("channels", 3))


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
    try:
        record: dict[str, KwargValue] = {"config": json.dumps(model.yaml, default=str), "classes": _names(model, file)}
    except TypeError as error:
        raise SourceError(f"Cannot use {file}: its configuration is no plain data: {error}") from error
    if getattr(model.yaml, "plans", ()):
        return model, record  # a converted network: it is as it is
    again = _construct(parsed.canonical, recorded_config(parsed.canonical, record["config"]), record, seed=0)
    _require_same(again, model, file)
    return again, record


def _names(model: Any, file: Path) -> list[ParamValue]:  # noqa: ANN401 - a module with the package's attributes
    """Give the names of the classes of a file's network, in order."""
    names = getattr(model, "names", None)
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    by_number = {int(i): str(name) for i, name in names.items() if str(i).isdigit()} if isinstance(names, dict) else {}
    if list(range(len(by_number))) != sorted(by_number) or len(by_number) != model.yaml.get("nc"):
        raise SourceError(
            f"Cannot use {file}: expected names of its {model.yaml.get('nc')} classes, got {str(names)[:80]}."
        )
    return [by_number[i] for i in range(len(by_number))]


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
            hint=_OTHER_VERSION,
        ) from error
    if not same:
        raise SourceError(
            f"Cannot use {file}: built from its configuration, its network computes something else",
            hint=_OTHER_VERSION,
        )
