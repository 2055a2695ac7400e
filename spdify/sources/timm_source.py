"""Models of timm: by name, from the Hugging Face Hub, from a folder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import timm
from pydantic import ValidationError
from timm.data.config import resolve_model_data_config

from spdify.errors import SourceError, UsageError
from spdify.records import Inputs, InputSpec, Preprocessing, Source
from spdify.sources.construction import construct, registry_values
from spdify.sources.loaded_model import LoadedModel
from spdify.sources.network import downloading
from spdify.sources.timm_config import TimmConfig, find_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spdify.sources.options import BuildOptions, KwargValue
    from spdify.sources.spec import ParsedSpec

_IMAGE_AXES = 3


def build_timm(parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model of timm.

    Args:
        parsed: A spec of kind `timm`, `hf-hub` or `local-dir`.
        options: What was asked for; the checkpoint is not loaded here.

    Returns:
        The model with random or pretrained weights.

    Raises:
        SourceError: There is no such model, it cannot be built so, or its weights cannot be fetched.
        UsageError: The options contradict each other.
    """
    config = find_config(parsed)
    kwargs = _requested(config, options)
    model = _create(parsed, config, kwargs, options).eval()
    preprocessing = _preprocessing(model, kwargs, options, parsed.canonical)
    classes = getattr(model, "num_classes", None)
    source = Source(
        spec=parsed.canonical,
        kind=parsed.kind,
        name=parsed.name,
        kwargs=_rebuilding(parsed, config, kwargs),
        num_classes=classes if isinstance(classes, int) else None,
        weights=f"pretrained, {config.weights_name}" if options.pretrained else f"random, seed {options.seed}",
        preprocessing=preprocessing,
    )
    return LoadedModel(model, source, Inputs(args=(InputSpec(shape=(1, *preprocessing.input_size)),)))


def timm_structure(source: Source) -> nn.Module:
    """Build the structure of a model of timm from its record, with whatever weights the constructor gives.

    Args:
        source: As `build_timm` has recorded it.

    Returns:
        The model.

    Raises:
        SourceError: This timm cannot build it.
    """
    kwargs = registry_values(source.kwargs)
    # Sources with a configuration of their own name their architecture here, so that no network is needed again.
    name = str(kwargs.pop("model_name", source.spec.partition(":")[2]))
    if ":" in name or not timm.is_model(name):
        raise SourceError(f"Cannot build {source.spec}: timm {timm.__version__} has no model '{name}'.")
    return construct(partial(timm.create_model, name), kwargs, name=source.spec, seed=0)


def _requested(config: TimmConfig, options: BuildOptions) -> dict[str, KwargValue]:
    kwargs = options.constructor_kwargs()
    if options.input_size is None:
        return kwargs
    if len(options.input_size) != _IMAGE_AXES:
        raise UsageError(f"Cannot use the input size {options.input_size} with timm: expected C,H,W.")
    channels, *size = options.input_size
    if kwargs.setdefault("in_chans", channels) != channels:
        raise UsageError(f"Cannot use in_chans={kwargs['in_chans']} and inputs with {channels} channels.")
    if channels == config.channels and options.in_chans is None and "in_chans" not in options.model_kwargs:
        del kwargs["in_chans"]
    _request_size(config, kwargs, size)
    return kwargs


def _request_size(config: TimmConfig, kwargs: dict[str, KwargValue], size: list[int]) -> None:
    """Have a model that takes one size only built for `size` (H, W)."""
    if "img_size" in kwargs:
        if _height_width(kwargs["img_size"]) != tuple(size):
            raise UsageError(f"Cannot use img_size={kwargs['img_size']} and inputs of {size[0]}x{size[1]}.")
    elif config.fixed_size not in (None, tuple(size)) and not kwargs.get("dynamic_img_size"):
        kwargs["img_size"] = list(size)


def _create(parsed: ParsedSpec, config: TimmConfig, kwargs: dict[str, KwargValue], options: BuildOptions) -> nn.Module:
    if options.pretrained:
        _check_weights_exist(parsed, config)
    spec = parsed.target if parsed.kind == "timm" else parsed.canonical
    constructor = partial(timm.create_model, spec, pretrained=options.pretrained)
    values = registry_values(kwargs)
    if parsed.kind == "local-dir" or not (options.pretrained or parsed.kind == "hf-hub"):
        return _construct_local(constructor, values, parsed, options)
    what = f"weights for {parsed.target} ({config.weights_name})"
    with downloading(what, hub=config.on_hub or parsed.kind == "hf-hub"):
        return construct(constructor, values, name=parsed.canonical, seed=options.seed)


def _construct_local(
    constructor: Callable[..., nn.Module], values: dict[str, Any], parsed: ParsedSpec, options: BuildOptions
) -> nn.Module:
    try:
        return construct(constructor, values, name=parsed.canonical, seed=options.seed)
    except OSError as error:
        raise SourceError(f"Cannot build {parsed.canonical}: {error}.") from error


def _check_weights_exist(parsed: ParsedSpec, config: TimmConfig) -> None:
    places = ("url", "file", "hf_hub_id")
    if parsed.kind != "timm" or not config.pretrained or any(config.pretrained.get(key) for key in places):
        return
    architecture = parsed.target.partition(".")[0]
    others = timm.list_pretrained(f"{architecture}.*")
    hint = f"There are weights for {', '.join(others)}." if others else "Pass --checkpoint FILE."
    raise SourceError(
        f"Cannot use pretrained weights for {parsed.target}: timm {timm.__version__} has none.",
        hint=f"{hint} Or leave out --pretrained for random weights.",
    )


def _rebuilding(parsed: ParsedSpec, config: TimmConfig, kwargs: dict[str, KwargValue]) -> dict[str, Any]:
    if parsed.kind == "timm":
        return dict(kwargs)
    recorded = {"model_name": config.architecture, **config.defaults(), **kwargs}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in recorded.items()}


def _preprocessing(model: nn.Module, kwargs: dict[str, KwargValue], options: BuildOptions, name: str) -> Preprocessing:
    """Read how images become inputs from timm's configuration, which a folder or the hub may have brought.

    Raises:
        SourceError: It is not what it should be.
    """
    try:
        data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        size = options.input_size or _default_size(data["input_size"], kwargs)
        return Preprocessing(
            input_size=size,
            mean=_per_channel(data["mean"], size[0]),
            std=_per_channel(data["std"], size[0]),
            interpolation=data["interpolation"],
            crop_pct=data["crop_pct"],
            crop_mode=data["crop_mode"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"]
        raise SourceError(f"Cannot use the preprocessing of {name}: {where}: {what}.") from error
    except (TypeError, ValueError, KeyError, AssertionError, AttributeError, IndexError, OverflowError) as error:
        raise SourceError(f"Cannot use the preprocessing of {name}: {type(error).__name__}: {error}.") from error


def _default_size(published: tuple[int, ...], kwargs: dict[str, KwargValue]) -> tuple[int, ...]:
    channels, *size = published
    asked = kwargs.get("in_chans")
    channels = asked if isinstance(asked, int) else channels
    return (channels, *(_height_width(kwargs["img_size"]) if kwargs.get("img_size") else size))


def _height_width(size: KwargValue) -> tuple[int, ...]:
    try:
        height, width = size if isinstance(size, list) else (size, size)
        return int(height), int(width)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"Cannot use img_size={size}: expected a number, or [height, width].") from None


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Give one value per channel; as timm's loader, the average where the model has other channels than its weights."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
