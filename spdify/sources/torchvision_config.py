"""What torchvision knows about a model: its default weights, and from their transforms the inputs."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torchvision

from spdify.errors import SourceError
from spdify.records import Preprocessing
from spdify.sources.near_names import near_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn
    from torchvision.models import WeightsEnum

    from spdify.records import Source

FALLBACK_SIZE = (3, 224, 224)
FRAMES = 16
"""Length of a clip, in frames, where the weights ask for no more."""

_CHANNELS = 3


def find_builder(name: str) -> Callable[..., nn.Module]:
    """Look a model up.

    Args:
        name: As `torchvision.models.list_models` has it.

    Returns:
        The function that builds it.

    Raises:
        SourceError: torchvision has no such model.
    """
    names = torchvision.models.list_models()
    if name not in names:
        raise SourceError(
            f"Cannot find the model '{name}' in torchvision {torchvision.__version__}.",
            hint=near_names(name, [], elsewhere=names, prefix="torchvision:"),
        )
    builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(name)
    return builder


def default_weights(name: str) -> WeightsEnum | None:
    """Give the entry of the weights enum that `DEFAULT` stands for, or None where a model has no weights."""
    return getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)


def class_count(weights: WeightsEnum | None) -> int | None:
    """Give the number of classes that the default weights were trained for."""
    categories = weights.meta.get("categories") if weights is not None else None
    return len(categories) if categories else None


def label_names(source: Source) -> tuple[str, ...]:
    """Give the names of a model's outputs, as its default weights have them; empty where torchvision has none.

    Args:
        source: Of any kind; a model that was built for another number of classes has other outputs than these.
    """
    if source.kind != "torchvision":
        return ()
    weights = default_weights(source.spec.partition(":")[2])
    return tuple(weights.meta.get("categories") or ()) if weights is not None else ()


def input_count(weights: WeightsEnum | None) -> int:
    """Give the number of images that the model compares: optical flow takes two."""
    return max(1, len(inspect.signature(_preset(weights).forward).parameters)) if weights is not None else 1


def default_input_size(weights: WeightsEnum | None, model: nn.Module) -> tuple[int, ...]:
    """Give the size of one input without the batch.

    Args:
        weights: The default weights.
        model: The built model; a detector knows the size that it resizes images to.

    Returns:
        C,H,W of the crop that the weights are evaluated on; C,T,H,W for video; for detectors the square of the
        shorter side; for optical flow the smallest size that the model takes; for a model that takes one size only,
        that size (without its weights a model may be built for another size than they have).
    """
    if isinstance(fixed := getattr(model, "image_size", None), int):
        return (_CHANNELS, fixed, fixed)
    if weights is None:
        return FALLBACK_SIZE
    preset = _preset(weights)
    crop = getattr(preset, "crop_size", None) or getattr(preset, "resize_size", None) or _resized_to(model)
    height, width = _pair(crop or weights.meta.get("min_size") or FALLBACK_SIZE[1:])
    if _is_video(weights):
        return (_CHANNELS, max(FRAMES, weights.meta.get("min_temporal_size", FRAMES)), height, width)
    return (_CHANNELS, height, width)


def preprocessing(weights: WeightsEnum | None, size: tuple[int, ...]) -> Preprocessing | None:
    """Describe how images become inputs.

    Args:
        weights: The default weights.
        size: C,H,W of one input.

    Returns:
        None for video, detection and optical flow, whose inputs are no normalised crops.
    """
    if weights is None or _is_video(weights):
        return None
    preset = _preset(weights)
    if not hasattr(preset, "mean"):
        return None
    (resize,) = preset.resize_size
    (crop,) = getattr(preset, "crop_size", (resize,))
    return Preprocessing(
        input_size=size,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_pct=_share(crop, resize),
    )


def _share(crop: int, resize: int) -> float:
    share = crop / resize
    # Who divides the crop by it and rounds down (timm does) must get `resize` back, not one pixel less.
    return share if math.floor(crop / share) == resize else math.nextafter(share, 0.0)


def _preset(weights: WeightsEnum) -> Any:  # noqa: ANN401 - the presets are private classes without a common type
    return weights.transforms()


def _is_video(weights: WeightsEnum) -> bool:
    # The class is private to torchvision and has nothing else that tells it apart.
    return type(_preset(weights)).__name__ == "VideoClassification"


def _resized_to(model: nn.Module) -> tuple[int, ...] | None:
    transform = getattr(model, "transform", None)
    sizes = getattr(transform, "fixed_size", None) or getattr(transform, "min_size", None)
    # Of several shorter sides the last is the one in eval mode.
    return (sizes[-1],) if sizes else None


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[-1])
