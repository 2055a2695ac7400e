"""Attention of every position over all others (arXiv 1711.07971), as a branch beside the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from spdify.blocks.starting import redraw

if TYPE_CHECKING:
    from torch import Tensor


class NonLocal(nn.Module):
    """Non-local block (arXiv 1711.07971, section 3.3), starting as the identity: x + norm(W·softmax(θ(x)ᵀφ(x))·g(x)).

    θ, φ, g and W are 1x1 convolutions, and the norm's gain starts at zero. The attention has (H·W)² entries for each
    image. It is timm's `NonLocalAttn`.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of θ, φ and g, which have at least one.
        scale: Whether θᵀφ is divided by √C, as timm has it; the paper's is not.

    Shape:
        Input and output (N, C, H, W); in train mode the norm needs N·H·W > 1.
    """

    def __init__(self, channels: int, *, reduction: int = 2, scale: bool = True) -> None:
        """Make the layers; the norm's gain is zero."""
        from timm.layers.non_local_attn import NonLocalAttn  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        make: Any = NonLocalAttn  # which has no types
        self.attention: nn.Module = make(channels, use_scale=scale, rd_channels=max(channels // reduction, 1))

    def reset_parameters(self) -> None:
        """Draw the weights anew; the norm's gain is zero."""
        redraw(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = self.attention(x)
        return y
