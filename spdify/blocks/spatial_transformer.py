"""A map seen through an affine transformation that a small network chooses for it.

The sampling is PyTorch's `grid_sample`. The last layer of the small network starts at
zero and is added to the identity, so what comes out at the start is what went in, to the rounding of positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.deformable_conv import IMAGE, NARROW

if TYPE_CHECKING:
    from torch import Tensor

AFFINE = 6  # numbers of a transformation
POOLED = 4  # positions along each axis that the transformation is made from: where something is must be told apart


class ZeroLinear(nn.Linear):
    """A `torch.nn.Linear` that starts at zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class SpatialTransformer(nn.Module):
    """Spatial transformer (arXiv 1506.02025), starting as the identity: y = sample(x, (I + Δ(x)) · grid).

    Δ is made by three convolutions of stride 2, an average over 4×4 equal parts of what is left, whatever its size, and
    two linear layers. What lies outside the map is zero.

    Args:
        channels: C of the maps.
        width: Channels of the first convolution; the others have twice as many, and so has the first linear layer.

    Shape:
        Input (N, C, H, W) or (C, H, W), output the same.
    """

    OPAQUE: ClassVar[bool] = True  # its own strided convolutions are no sites

    def __init__(self, channels: int, *, width: int = 16) -> None:
        """Make the layers; the last one is zero."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 2, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, 2, 1)
        self.fc1 = nn.Linear(2 * width * POOLED**2, 2 * width)
        self.fc2 = ZeroLinear(2 * width, AFFINE)

    def reset_parameters(self) -> None:
        """Draw all layers anew; the last one is zero."""
        for layer in (self.conv1, self.conv2, self.conv3, self.fc1, self.fc2):
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = torch.relu(self.conv1(x))
        y = torch.relu(self.conv2(y))
        y = averaged(torch.relu(self.conv3(y)), POOLED)
        y = torch.relu(self.fc1(torch.flatten(y, -IMAGE)))
        return transformed(x, self.fc2(y))


@torch.fx.wrap
def averaged(x: Tensor, parts: int) -> Tensor:
    """Average maps over equal parts, by the area that positions have in each; exported for any size, unlike pools.

    Args:
        x: (…, H, W).
        parts: Along either axis.

    Returns:
        (…, parts, parts).
    """
    rows, columns = (_shares(size, parts, x) for size in x.shape[-2:])
    return torch.matmul(torch.matmul(rows, x), columns.transpose(0, 1))


def _shares(size: int, parts: int, like: Tensor) -> Tensor:
    """Give the share of each position in each part's average: (parts, size)."""
    low = torch.arange(size, dtype=torch.float32, device=like.device)
    start = torch.arange(parts, dtype=torch.float32, device=like.device)[:, None] * (size / parts)
    overlap = torch.minimum(low + 1, start + size / parts) - torch.maximum(low, start)
    return (overlap.clamp(min=0) * (parts / size)).to(like.dtype)


@torch.fx.wrap
def transformed(x: Tensor, change: Tensor) -> Tensor:
    """Sample maps at positions that an affine transformation gives.

    Args:
        x: (N, C, H, W) or (C, H, W).
        change: (N, 6) or (6,): what is added to the identity, row by row; positions run from -1 to 1.

    Returns:
        The shape and dtype of `x`; computed in float32 where that is narrower.
    """
    if x.dim() == IMAGE:
        return transformed(x[None], change[None])[0]
    dtype = torch.float32 if x.dtype in NARROW else x.dtype
    # As `affine_grid` with I + Δ has it, which would fix the size when it is exported.
    height, width = x.shape[-2:]
    ys = (2 * torch.arange(height, dtype=dtype, device=x.device)[:, None] + 1) / height - 1
    xs = (2 * torch.arange(width, dtype=dtype, device=x.device) + 1) / width - 1
    to_x, to_y = change.to(dtype).reshape(-1, 2, 3, 1, 1).unbind(1)
    grid = torch.stack([xs + _affine(to_x, xs, ys), ys + _affine(to_y, xs, ys)], dim=-1)
    return F.grid_sample(x.to(dtype), grid, align_corners=False).to(x.dtype)


def _affine(row: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Evaluate one row of each transformation, (N, 3, 1, 1), at all positions: (N, H, W)."""
    return row[:, 0] * xs + row[:, 1] * ys + row[:, 2]
