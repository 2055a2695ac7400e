"""Structures without weights: built from a record, on the meta device where that is safe, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from spdify.errors import SourceError, UsageError
from spdify.sources.comparing import first_difference
from spdify.sources.options import RESERVED_KWARGS
from spdify.sources.reparameterizing import fold_branches
from spdify.sources.timm_source import timm_structure
from spdify.sources.torchvision_source import torchvision_structure

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import Source

Device: TypeAlias = Literal["meta", "cpu"]


def build_structure(source: Source, *, device: Device) -> nn.Module:
    """Build a model's structure from its record, for weights that come from elsewhere.

    On the meta device nothing is allocated and nothing initialised. That is not possible where a constructor computes
    with real tensors, or leaves some that no state dict holds (non-persistent buffers, plain attributes): those
    would stay without values. Such models are built on the CPU instead.

    Args:
        source: Of a registry kind.
        device: Where the parameters should be.

    Returns:
        The model in eval mode, on `device` or on the CPU.

    Raises:
        SourceError: The source is the user's own code, or the installed libraries cannot build it.
    """
    if not source.is_registry:
        raise SourceError(
            f"Cannot build {source.spec}: it comes from code that spdify does not run by itself.",
            hint="Build the model and hand it over: spdify.load(folder, model=...).",
        )
    if switches := sorted(RESERVED_KWARGS & source.kwargs.keys() - {"model_name"}):
        raise SourceError(f"Cannot build {source.spec}: its record has {', '.join(switches)}, which fetches weights.")
    if device == "meta":
        model = _on_meta(source)
        if model is not None:
            return model.eval()
    return _construct(source).eval()


def check_rebuilds(model: nn.Module, source: Source) -> None:
    """Make sure that the record of a model builds the same structure again.

    Args:
        model: As it was built.
        source: Its record.

    Raises:
        SourceError: It does not.
    """
    difference = first_difference(model, build_structure(source, device="meta"))
    if difference is not None:
        raise SourceError(
            f"Cannot use {source.spec}: its constructor builds another structure together with its weights than it "
            f"does without them; the first difference is at {difference}.",
            hint="Build it without --pretrained and pass --checkpoint FILE, or convert a factory of your own: "
            "path/to/file.py:FACTORY.",
        )


def _construct(source: Source) -> nn.Module:
    model = torchvision_structure(source) if source.kind == "torchvision" else timm_structure(source)
    return fold_branches(model, name=source.spec) if source.reparameterized else model


def _on_meta(source: Source) -> nn.Module | None:
    try:
        with torch.device("meta"):
            model = _construct(source)
    except UsageError:
        raise
    except SourceError:
        # The attempt on the CPU tells whether it was the device or the arguments.
        return None
    return None if _has_unsaved_tensors(model) else model


def _has_unsaved_tensors(model: nn.Module) -> bool:
    saved = model.state_dict(keep_vars=True)
    if any(name not in saved for name, _ in model.named_buffers()):
        return True
    return any(_holds_tensor(value) for module in model.modules() for value in _plain_attributes(module))


def _plain_attributes(module: nn.Module) -> list[object]:
    own = ("_parameters", "_buffers", "_modules")
    return [value for name, value in vars(module).items() if name not in own]


def _holds_tensor(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensor, value))
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, Tensor)
