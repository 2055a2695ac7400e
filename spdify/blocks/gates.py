"""Gates: maps weighed by channel, and by position, with numbers that are made from the maps themselves.

Both are timm's modules. The layer in front of their bottleneck's ReLU begins with pairs of rows that are each other's
opposite, so that whatever comes in, one of each pair passes: of a few random rows, all may be off for every map, and
such a gate never learns. Their sigmoids start at one half exactly, since what goes into them is zero whatever the maps
hold, so a constant factor of two for each makes the gates one: the block starts as the identity, in every precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

HALF = 2.0  # what a sigmoid at zero is to be multiplied by
PAIR = 2  # channels that a bottleneck has at least


def bottleneck(channels: int, reduction: int) -> int:
    """Give the channels of a bottleneck: one for each `reduction`, and two at least."""
    return max(channels // reduction, PAIR)


@torch.no_grad()
def oppose(layer: nn.Conv2d) -> None:
    """Make the rows of a layer, in place, pairs of opposites; of an odd number the last one stays."""
    half = layer.out_channels // PAIR
    for tensor in (layer.weight, layer.bias):
        if tensor is not None:
            tensor[half : PAIR * half] = -tensor[:half]


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507, section 3), starting as the identity: x · 2σ(W₂·relu(W₁·mean(x))).

    The last layer starts at zero, so that each gate is 2σ(0) = 1; gates lie between 0 and 2.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of the bottleneck, which has at least two.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        """Make the layers; the last one is zero."""
        from timm.layers.squeeze_excite import SEModule  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        self.gate = SEModule(channels, rd_channels=bottleneck(channels, reduction))
        oppose(self.gate.fc1)
        nn.init.zeros_(self.gate.fc2.weight)
        nn.init.zeros_(self.gate.get_parameter("fc2.bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = HALF * self.gate(x)
        return y


class ConvolutionalBlockAttention(nn.Module):
    """CBAM (arXiv 1807.06521, section 3), starting as the identity: a gate by channel, then one by position.

    The last layer of the channels' network and the gain of the spatial convolution's norm start at zero, so that each
    gate is 2σ(0) = 1; gates lie between 0 and 2.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of the bottleneck, which has at least two.
        kernel_size: Of the spatial gate's convolution; odd.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel_size: int = 7) -> None:
        """Make the layers; the last ones are zero."""
        from timm.layers.cbam import CbamModule  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        self.gate = CbamModule(channels, rd_channels=bottleneck(channels, reduction), spatial_kernel_size=kernel_size)
        oppose(self.gate.channel.fc1)
        nn.init.zeros_(self.gate.channel.fc2.weight)
        nn.init.zeros_(self.gate.spatial.conv.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = HALF * HALF * self.gate(x)
        return y
