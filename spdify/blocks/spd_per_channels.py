"""One block per channel count, for a pool without weights that a network calls with several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx


class ByChannels(nn.ModuleDict):
    """Blocks by their number of channels, as text; fx takes it for an argument by its path."""

    def __fx_create_arg__(self, tracer: fx.Tracer) -> fx.Node:
        """Be read from the traced module, like a parameter."""
        return tracer.create_node("get_attr", tracer.path_of_module(self), (), {})


@torch.fx.wrap
def run_for_channels(x: Tensor, blocks: nn.ModuleDict, dims: int) -> Tensor:
    """Run the block that has as many channels as the input; one node in any fx trace.

    Raises:
        ValueError: There is none.
    """
    channels = x.shape[-dims - 1]
    if str(channels) not in blocks:
        msg = f"there are blocks for {', '.join(blocks)} channels and none for the {channels} of the input"
        raise ValueError(msg)
    y: Tensor = blocks[str(channels)](x)
    return y


class SPDPerChannels(nn.Module):
    """Blocks with different numbers of channels in the place of one pool; each input goes to the one that fits.

    Args:
        blocks: By their number of channels.
        dims: Spatial axes: the channels are the axis before them.

    Shape:
        Input (N, C, *spatial) or (C, *spatial) with a C for which there is a block.

    Raises:
        ValueError: There are no blocks, or an input has other channels than any of them.
    """

    def __init__(self, blocks: Mapping[int, nn.Module], dims: int = 2) -> None:
        """Take the blocks."""
        super().__init__()
        if not blocks:
            raise ValueError("at least one block is needed")
        self.dims = dims
        self.blocks = ByChannels({str(channels): block for channels, block in blocks.items()})

    def reset_parameters(self) -> None:
        """Set every block to its start."""
        for block in self.blocks.values():
            reset: Any = block.reset_parameters
            reset()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block for the input's channels."""
        return run_for_channels(x, self.blocks, self.dims)
