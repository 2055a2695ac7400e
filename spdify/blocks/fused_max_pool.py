"""A trained `SPDMaxPool` as strided depthwise convolutions and ReLUs, with a padding that no size enters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.padded_conv import strided_convolution
from spdify.blocks.spd_conv import flat_padding, strided_weight
from spdify.blocks.spd_max_pool import unfolded_rungs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spdify.blocks.spd_max_pool import SPDMaxPool


class Ladder(nn.Module):
    """The tournament along one axis: see `spdify.blocks.spd_max_pool`.

    Args:
        rungs: Depthwise convolutions of the input: k - 1 differences, and the last tap.
    """

    def __init__(self, rungs: Sequence[nn.Module]) -> None:
        """Take the convolutions."""
        super().__init__()
        self.rungs = nn.ModuleList(rungs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        *gaps, last = self.rungs
        if not gaps:
            y: Tensor = last(x)
            return y
        lead = F.relu(gaps[0](x))
        for gap in gaps[1:]:
            lead = F.relu(gap(x) + lead)
        result: Tensor = last(x) + lead
        return result


class FusedMaxPool(nn.Module):
    """What an `SPDMaxPool` computes, without moving positions to channels.

    Args:
        block: With dilation 1 along padded axes, and no same padding: what it pads must not depend on the values or the
            size of an input.

    Shape:
        As in `SPDMaxPool`.
    """

    def __init__(self, block: SPDMaxPool) -> None:
        """Copy the block's weights."""
        super().__init__()
        window = block.window
        if window.taps or window.extent:
            raise ValueError("expected padding by the edge, of a fixed width")
        sides = [
            (p, e - p + k * s)
            for p, e, k, s in zip(window.padding, window.excess, window.kernel, window.scale, strict=True)
        ]
        self.crop = tuple(flat_padding([(0, min(high, 0)) for _, high in sides]))
        self.pads = tuple(flat_padding([(low, max(high, 0)) for low, high in sides]))
        ladders: list[nn.Module] = []
        for axis, weight in sorted(block.tournament.items()):
            step = [window.scale[int(axis)] if i == int(axis) else 1 for i in range(len(sides))]
            unfolded = unfolded_rungs(weight.detach(), int(axis), len(sides))
            rungs = [strided_weight(rung, step) for rung in unfolded]
            ladders.append(Ladder([_depthwise(rung, step) for rung in rungs]))
        self.ladders = nn.Sequential(*ladders)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *spatial) to (N, C, *out)."""
        if any(self.crop):
            x = F.pad(x, self.crop)
        if any(self.pads):
            x = F.pad(x, self.pads, mode="replicate")
        y: Tensor = self.ladders(x)
        return y

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"pads={self.pads}" + (f", crop={self.crop}" if any(self.crop) else "")


def _depthwise(weight: Tensor, stride: Sequence[int]) -> nn.Module:
    """Make one rung; its kernel stays whole: a smaller one would need a crop of its own."""
    return strided_convolution(weight, None, stride, [(0, 0)] * len(stride), groups=weight.shape[0], whole=True)
