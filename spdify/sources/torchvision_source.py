"""Models of torchvision."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

import torchvision

from spdify.errors import SourceError, UsageError
from spdify.records import Inputs, InputSpec, Source
from spdify.sources import torchvision_config as config
from spdify.sources.construction import construct, registry_values
from spdify.sources.loaded_model import LoadedModel
from spdify.sources.network import downloading

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

    from spdify.sources.options import BuildOptions, KwargValue
    from spdify.sources.spec import ParsedSpec


def build_torchvision(parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model of torchvision.

    Args:
        parsed: A spec of kind `torchvision`.
        options: What was asked for; the checkpoint is not loaded here.

    Returns:
        The model with random weights, or with those that torchvision calls `DEFAULT`.

    Raises:
        SourceError: There is no such model, it cannot be built so, or its weights cannot be fetched.
        UsageError: Other input channels were asked for, or other classes than the weights have.
    """
    name = parsed.target
    config.find_builder(name)
    weights = config.default_weights(name)
    kwargs = options.constructor_kwargs()
    _check(name, weights, kwargs, options)
    model = _create(name, weights, kwargs, options).eval()
    if (fixed := _other_size(model, kwargs, options)) is not None:
        kwargs["image_size"] = fixed
        model = _create(name, weights, kwargs, options).eval()
    size = options.input_size or config.default_input_size(weights, model)
    classes = kwargs.get("num_classes", config.class_count(weights))
    source = Source(
        spec=parsed.canonical,
        kind="torchvision",
        name=parsed.name,
        kwargs=_rebuilding(model, parsed, kwargs) if options.pretrained else kwargs,
        num_classes=classes if isinstance(classes, int) else None,
        weights=f"pretrained, {weights}" if options.pretrained else f"random, seed {options.seed}",
        preprocessing=config.preprocessing(weights, size),
    )
    spec = InputSpec(shape=(1, *size))
    return LoadedModel(model, source, Inputs(args=(spec,) * config.input_count(weights)))


def torchvision_structure(source: Source) -> nn.Module:
    """Build the structure of a model of torchvision from its record, with random weights.

    Args:
        source: As `build_torchvision` has recorded it.

    Returns:
        The model.

    Raises:
        SourceError: This torchvision cannot build it.
    """
    name = source.spec.partition(":")[2]
    return _construct(name, None, source.kwargs, seed=0)


def _check(name: str, weights: WeightsEnum | None, kwargs: dict[str, KwargValue], options: BuildOptions) -> None:
    channels = kwargs.get("in_chans") or (options.input_size or config.FALLBACK_SIZE)[0]
    if channels != config.FALLBACK_SIZE[0] or "in_chans" in options.model_kwargs:
        raise UsageError(
            f"Cannot build torchvision:{name} for {channels} input channels: torchvision's constructors do not take "
            "them.",
            hint="Write a factory that replaces the first convolution and convert path/to/file.py:FACTORY, "
            "or use a model of timm.",
        )
    kwargs.pop("in_chans", None)
    if not options.pretrained:
        return
    if weights is None:
        raise SourceError(
            f"Cannot use pretrained weights for torchvision:{name}: torchvision {torchvision.__version__} has none.",
            hint="Pass --checkpoint FILE, or leave out --pretrained for random weights.",
        )
    trained = config.class_count(weights)
    if kwargs.get("num_classes", trained) != trained:
        raise UsageError(
            f"Cannot build torchvision:{name} with pretrained weights for {kwargs['num_classes']} classes: "
            f"they have {trained}.",
            hint="Leave out --num-classes, or convert a factory of your own that replaces the classifier: "
            "path/to/file.py:FACTORY.",
        )


def _other_size(model: nn.Module, kwargs: dict[str, KwargValue], options: BuildOptions) -> int | None:
    """Give the size to build for where a model takes images of one size only, and another one is asked for."""
    built = getattr(model, "image_size", None)
    if not isinstance(built, int) or options.input_size is None or "image_size" in kwargs:
        return None
    height, width = options.input_size[1:]
    if height != width:
        raise UsageError(
            f"Cannot build {type(model).__name__} for images of {height}x{width}: it takes squares only.",
            hint="Give an --input-size with equal height and width.",
        )
    return height if height != built else None


def _create(name: str, weights: WeightsEnum | None, kwargs: dict[str, KwargValue], options: BuildOptions) -> nn.Module:
    if not options.pretrained or weights is None:
        return _construct(name, None, kwargs, seed=options.seed)
    with downloading(f"weights for torchvision:{name} ({weights.url})", hub=False):
        return _construct(name, weights, kwargs, seed=options.seed)


def _construct(name: str, weights: WeightsEnum | None, kwargs: dict[str, KwargValue], *, seed: int) -> nn.Module:
    builder = config.find_builder(name)
    switches: dict[str, WeightsEnum | None] = {"weights": weights}
    if "weights_backbone" in inspect.signature(builder).parameters:
        # Without this, detection and segmentation models fetch a backbone even for random weights.
        switches["weights_backbone"] = None
    return construct(partial(builder, **switches), registry_values(kwargs), name=f"torchvision:{name}", seed=seed)


def _rebuilding(model: nn.Module, parsed: ParsedSpec, kwargs: dict[str, KwargValue]) -> dict[str, KwargValue]:
    """Find the arguments that build the same structure without weights.

    The constructors change some arguments where they load weights (`transform_input`, `aux_logits`, `aux_loss`).
    """
    plain = _construct(parsed.target, None, kwargs, seed=0)
    return {**kwargs, **_changed_attributes(model, plain), **_changed_switches(model, plain, parsed.target)}


def _changed_attributes(model: nn.Module, plain: nn.Module) -> dict[str, KwargValue]:
    names = inspect.signature(type(model).__init__).parameters
    pairs = {n: (getattr(model, n), getattr(plain, n)) for n in names if hasattr(model, n) and hasattr(plain, n)}
    scalars = (bool, int, float, str)
    return {n: new for n, (new, old) in pairs.items() if isinstance(new, scalars) and new != old}


def _changed_switches(model: nn.Module, plain: nn.Module, name: str) -> dict[str, KwargValue]:
    """Find auxiliary parts that the weights have switched on, by the switch that the builder has for them."""
    if {n for n, _ in model.named_children()} <= {n for n, _ in plain.named_children()}:
        return {}
    switches = inspect.signature(config.find_builder(name)).parameters
    return {n: True for n in switches if n.startswith("aux_")}
