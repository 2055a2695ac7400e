"""Space-to-depth alone: what a pool becomes when the next convolution takes all of its positions (arXiv 2208.03641)."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch
from torch import nn

from spdify.blocks.phases import Edge, space_to_depth, whole_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@torch.fx.wrap
def blocks_to_channels(x: Tensor, scale: Sequence[int], edge: Edge) -> Tensor:
    """Move whole blocks of positions to channels; one node in any fx trace."""
    batched = x.dim() == len(scale) + 2
    y = whole_blocks(x if batched else x.unsqueeze(0), scale, edge)
    if 0 in y.shape[2:]:
        raise ValueError(f"input of {tuple(x.shape[-len(scale) :])} positions is smaller than a block of {scale}")
    y = space_to_depth(y, scale)
    return y if batched else y.squeeze(0)


class SpaceToDepth(nn.Module):
    """Blocks of positions become channels; nothing is lost but what `crop` crops.

    `torch.nn.PixelUnshuffle` for one to three axes, unequal scales, and sizes that the scale does not divide.

    Args:
        scale: Block size; a number (two axes) or one per spatial axis.
        edge: What becomes of a size that the scale does not divide: `crop` drops the last positions (a pool's floor
            mode), `replicate` fills the last block up with the edge value, `zeros` with zeros.

    Shape:
        Input (N, C, *spatial) or (C, *spatial), output (N, C·s₁·s₂…, *out), channel-major
        (`spdify.blocks.space_to_depth`), with out = floor(n / s) per axis for `crop`, else ceil(n / s).

    Raises:
        ValueError: Another edge, or an input is smaller than a block that is cropped to.
    """

    def __init__(self, scale: int | Sequence[int] = 2, *, edge: Edge = "crop") -> None:
        """Make the block; it has no weights."""
        super().__init__()
        if edge not in get_args(Edge):
            raise ValueError(f"expected one of {', '.join(get_args(Edge))} for an edge, got {edge!r}")
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        self.edge: Edge = edge

    @property
    def stride(self) -> tuple[int, ...]:
        """Input positions per output position and axis."""
        return self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C·s₁·s₂…, *out)."""
        return blocks_to_channels(x, self.scale, self.edge)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"scale={self.scale}, edge={self.edge!r}"
