"""Gates: maps weighed by channel, and by position, with numbers that are made from the maps themselves.

Both are timm's modules. Their sigmoids start at one half exactly, since what goes into them is zero whatever the maps
hold, so a constant factor of two for each makes the gates one: the block starts as the identity, in every precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

HALF = 2.0  # what a sigmoid at zero is to be multiplied by


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507, section 3), starting as the identity: x · 2σ(W₂·relu(W₁·mean(x))).

    The last layer starts at zero, so that each gate is 2σ(0) = 1; gates lie between 0 and 2.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of the bottleneck, which has at least one.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        """Make the layers; the last one is zero."""
        from timm.layers.squeeze_excite import SEModule  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        self.gate = SEModule(channels, rd_channels=max(channels // reduction, 1))
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
        reduction: Channels for each one of the bottleneck, which has at least one.
        kernel_size: Of the spatial gate's convolution; odd.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel_size: int = 7) -> None:
        """Make the layers; the last ones are zero."""
        from timm.layers.cbam import CbamModule  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        self.gate = CbamModule(channels, rd_channels=max(channels // reduction, 1), spatial_kernel_size=kernel_size)
        nn.init.zeros_(self.gate.channel.fc2.weight)
        nn.init.zeros_(self.gate.spatial.conv.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = HALF * HALF * self.gate(x)
        return y
