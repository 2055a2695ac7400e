"""Blocks that are made of layers: how all of them are drawn anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def redraw(block: nn.Module) -> None:
    """Draw the weights of all layers in a block, in place, from the inside out: a part may redo what its layers did."""
    for part in reversed([*block.modules()][1:]):
        layer: Any = part
        if callable(getattr(layer, "reset_parameters", None)):
            layer.reset_parameters()
