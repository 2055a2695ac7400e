"""The state of a model that is not its weights: caches, flags, buffers.

Tracing runs the model's own code, and some models write to themselves when they run: LeViT and EfficientFormer keep
attention biases in a dict, in eval mode, where a trace leaves fake tensors and other weights leave stale ones.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_CONTAINERS = (dict, OrderedDict, list, set)


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put back, on the way out, every module attribute, plain container and buffer that changed meanwhile."""
    attributes = [(module, _shallow(vars(module))) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, saved in attributes:
            _restore_attributes(module, saved)
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _shallow(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keep each attribute, and a copy of its content where it is a plain container."""
    return {name: (value, value.copy() if type(value) in _CONTAINERS else None) for name, value in attributes.items()}


def _restore_attributes(module: nn.Module, saved: dict[str, tuple[Any, Any]]) -> None:
    """Put back attributes by identity, and the content of plain containers in place."""
    vars(module).clear()
    for name, (value, content) in saved.items():
        if content is not None:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
        vars(module)[name] = value
