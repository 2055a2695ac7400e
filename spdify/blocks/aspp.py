"""Atrous spatial pyramid pooling (arXiv 1706.05587), as a branch beside the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from spdify.blocks.starting import redraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class AtrousPyramid(nn.Module):
    """ASPP (arXiv 1706.05587, section 3.3) as a branch that starts silent: x + P·ASPP(x), with a P of zero.

    ASPP is torchvision's: a 1x1 convolution, 3x3 ones of several dilations and the mean over the map, side by side,
    then a 1x1 convolution; each with batch norm and ReLU. Its dropout is left out: it would draw random numbers that
    layers behind it had before. P is a 1x1 convolution.

    Args:
        channels: C of the maps.
        rates: Dilations of the 3x3 convolutions.
        width: Channels of each branch.

    Shape:
        Input and output (N, C, H, W); in train mode N > 1, as the mean is normed over the batch alone.
    """

    OPAQUE = True

    def __init__(self, channels: int, *, rates: Sequence[int] = (1, 2, 3), width: int) -> None:
        """Make the layers; the last one is zero."""
        from torchvision.models.segmentation.deeplabv3 import ASPP  # noqa: PLC0415 - takes seconds to import

        super().__init__()
        self.aspp = ASPP(channels, tuple(rates), width)
        self.aspp.project = nn.Sequential(*[layer for layer in self.aspp.project if not isinstance(layer, nn.Dropout)])
        self.expand = nn.Conv2d(width, channels, 1, bias=False)
        nn.init.zeros_(self.expand.weight)

    def reset_parameters(self) -> None:
        """Draw the weights anew; the last layer is zero."""
        redraw(self)
        nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y: Tensor = x + self.expand(self.aspp(x))
        return y
