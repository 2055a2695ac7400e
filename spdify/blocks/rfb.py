"""The receptive field block (arXiv 1711.07767), beside the map itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from spdify.blocks.starting import redraw

if TYPE_CHECKING:
    from torch import Tensor


class ReceptiveField(nn.Module):
    """RFB (arXiv 1711.07767, section 3), starting silent: act(x + scale·W·[branches(x)]), with a W of zero.

    A branch is a 1x1 convolution to fewer channels, a k×k one, and a 3x3 one of dilation k, for k = 1, 3 and 5; the
    first has no k×k one, and 5x5 is two of 3x3, as in the paper. Each has batch norm and ReLU. The shortcut is the
    identity.

    Args:
        channels: C of the maps.
        reduction: Channels for each one of a branch, which has at least one.
        scale: Factor of what the branches give.
        activation: What comes last; `relu`, as in the paper, changes negative entries.

    Shape:
        Input and output (N, C, H, W); in train mode the norms need N·H·W > 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 8,
        scale: float = 0.1,
        activation: Literal["none", "relu"] = "none",
    ) -> None:
        """Make the layers; the last one is zero."""
        super().__init__()
        width = max(channels // reduction, 1)
        self.scale = scale
        # Kernels before the dilated one.
        self.branches = nn.ModuleList(
            _branch(channels, width, kernels, rate) for kernels, rate in (((), 1), ((3,), 3), ((3, 3), 5))
        )
        self.merge = nn.Conv2d(3 * width, channels, 1, bias=False)
        self.activation = nn.ReLU() if activation == "relu" else nn.Identity()
        nn.init.zeros_(self.merge.weight)

    def reset_parameters(self) -> None:
        """Draw the weights anew; the last layer is zero."""
        redraw(self)
        nn.init.zeros_(self.merge.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        context = self.merge(torch.cat([branch(x) for branch in self.branches], dim=1))
        y: Tensor = self.activation(x + self.scale * context)
        return y


def _branch(channels: int, width: int, kernels: tuple[int, ...], rate: int) -> nn.Sequential:
    """Make one branch."""
    layers = [_layer(channels, width, 1), *(_layer(width, width, kernel) for kernel in kernels)]
    return nn.Sequential(*layers, _layer(width, width, 3, rate))


def _layer(channels: int, width: int, kernel: int, rate: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
