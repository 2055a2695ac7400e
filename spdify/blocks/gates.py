"""Gates: maps weighed by channel, and by position, with numbers that are made from the maps themselves.

Both are timm's modules, with sigmoids that are doubled: what goes into them is zero at first whatever the maps hold,
and 2σ(0) is one, so that each block starts as the identity, in every precision.

A bottleneck of a few channels may be drawn so that its ReLU is closed for good: means of maps hardly differ from one
image to the next. So its channels start in pairs of opposite sign, one of which is open whatever comes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks.starting import redraw

if TYPE_CHECKING:
    from torch import Tensor


class DoubledSigmoid(nn.Module):
    """2σ(x), which is one at zero.

    Shape:
        Any; the output has the input's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map entries to gates between 0 and 2."""
        # The gate is doubled, not the gated map: halves of the smallest numbers of a precision are not in it.
        return 2.0 * torch.sigmoid(x)


def _bottleneck(channels: int, reduction: int) -> int:
    """Give the width of a bottleneck, enough for one pair."""
    return max(channels // reduction, 2)


def _pair(layer: nn.Conv2d) -> None:
    """Make the second half of a layer's channels, in place, the first with opposite signs."""
    half = layer.out_channels // 2
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter[half : 2 * half] = -parameter[:half]


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507, section 3), starting as the identity: x · 2σ(W₂·relu(W₁·mean(x))).

    The last layer starts at zero, so that each gate is 2σ(0) = 1; gates lie between 0 and 2.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of the bottleneck, which has at least two.

    Shape:
        Input and output (N, C, H, W).
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        """Make the layers; the last one is zero."""
        from timm.layers.squeeze_excite import SEModule  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        self.gate = SEModule(channels, rd_channels=_bottleneck(channels, reduction), gate_layer=DoubledSigmoid)
        self._start()

    def _start(self) -> None:
        _pair(self.gate.fc1)
        nn.init.zeros_(self.gate.fc2.weight)
        nn.init.zeros_(self.gate.get_parameter("fc2.bias"))

    def reset_parameters(self) -> None:
        """Draw the weights anew; the gates are one."""
        redraw(self)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = self.gate(x)
        return y


class ConvolutionalBlockAttention(nn.Module):
    """CBAM (arXiv 1807.06521, section 3), starting as the identity: a gate by channel, then one by position.

    The last layer of the channels' network and the gain of the spatial convolution's norm start at zero, so that each
    gate is 2σ(0) = 1; gates lie between 0 and 2.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of the bottleneck, which has at least two.
        kernel_size: Of the spatial gate's convolution; odd.

    Shape:
        Input and output (N, C, H, W).
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel_size: int = 7) -> None:
        """Make the layers; the last ones are zero."""
        from timm.layers.cbam import CbamModule  # noqa: PLC0415 - timm takes seconds to import

        super().__init__()
        self.gate = CbamModule(
            channels,
            rd_channels=_bottleneck(channels, reduction),
            spatial_kernel_size=kernel_size,
            gate_layer=DoubledSigmoid,
        )
        self._start()

    def _start(self) -> None:
        _pair(self.gate.channel.fc1)
        nn.init.zeros_(self.gate.channel.fc2.weight)
        nn.init.zeros_(self.gate.spatial.conv.bn.weight)

    def reset_parameters(self) -> None:
        """Draw the weights anew; the gates are one."""
        redraw(self)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = self.gate(x)
        return y
