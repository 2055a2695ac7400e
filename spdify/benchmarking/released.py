"""SPD-Conv as people have it today: the form to compare with.

Slices of the map, concatenated along channels in the order of the released code, then a convolution of odd size; 1×1
shortcuts become one dense convolution. Written from the paper's definition (arXiv 2208.03641, section 3).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.blocks import SPDConv
from spdify.blocks.phases import whole_blocks
from spdify.blocks.spd_conv import CONVOLUTIONS, flat_padding

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The rules behind it: strided convolutions as the paper has them, pools as they were.
RULES = b"""
schema = 1
summary = "The paper's SPD-Conv for strided convolutions; pools stay."
[source]
paper = "arXiv:2208.03641"
section = "3"
[[rule]]
name = "strided-conv"
rewrite = "replace-strided-conv"
match = { operator = "conv" }
params = { kernel = "odd", pointwise = "dense", standardisation = "bake" }
"""


def concatenated_slices(x: Tensor, scale: Sequence[int]) -> Tensor:
    """Move positions to channels by slicing and concatenating: block-major, the first axis fastest.

    Args:
        x: (N, C, *spatial), sizes divisible by the scale.
        scale: Block size per axis.

    Returns:
        (N, s₁·s₂…·C, *spatial / scale).
    """
    offsets = itertools.product(*(range(s) for s in reversed(scale)))
    slices = []
    for start_of in offsets:
        places: list[Any] = [slice(start, None, s) for start, s in zip(reversed(start_of), scale, strict=True)]
        slices.append(x[(..., *places)])
    return torch.cat(slices, dim=1)


class SlicedConv(nn.Module):
    """What an `SPDConv` computes, by slices, a concatenation and a convolution.

    Args:
        block: Without a margin.

    Shape:
        As the block's.
    """

    def __init__(self, block: SPDConv) -> None:
        """Copy the weights, input channels in the other order."""
        super().__init__()
        if block.margin or block.groups not in {1, block.in_channels}:
            raise ValueError("expected a dense or depthwise SPDConv without a margin")
        self.scale, self.padding, self.kernel_size = block.scale, block.padding, block.kernel_size
        self.groups = block.groups
        weight = block.weight.detach()
        axes = len(self.scale)
        split = weight.reshape(weight.shape[0], -1, *self.scale, *self.kernel_size)
        phases, taps = range(1 + axes, 1, -1), range(2 + axes, 2 + 2 * axes)
        order = [0, *phases, 1, *taps] if block.groups == 1 else [0, 1, *phases, *taps]
        weight = split.permute(order).reshape(weight.shape)
        self.weight = nn.Parameter(weight.contiguous().clone())
        self.bias = None if block.bias is None else nn.Parameter(block.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        out = [
            (n + low + high - k * s) // s + 1
            for n, k, s, (low, high) in zip(x.shape[2:], self.kernel_size, self.scale, self.padding, strict=True)
        ]
        y = concatenated_slices(whole_blocks(x, self.scale, "zeros"), self.scale)
        if self.groups > 1:  # a channel's positions have to lie side by side
            phases = math.prod(self.scale)
            y = y.reshape(y.shape[0], phases, -1, *y.shape[2:]).transpose(1, 2).reshape(y.shape)
        pads = [
            (low // s, o + k - 1 - n - low // s)
            for n, o, k, s, (low, _) in zip(y.shape[2:], out, self.kernel_size, self.scale, self.padding, strict=True)
        ]
        conv = CONVOLUTIONS[len(self.scale)]
        if all(low == high for low, high in pads):
            return conv(y, self.weight, self.bias, padding=tuple(low for low, _ in pads), groups=self.groups)
        return conv(nn.functional.pad(y, flat_padding(pads)), self.weight, self.bias, groups=self.groups)


def slice_blocks(model: nn.Module) -> int:
    """Put sliced convolutions into a network that the rules above converted, in place; give their number."""
    count = 0
    for path, block in list(model.named_modules()):
        if isinstance(block, SPDConv) and not block.margin and block.groups in {1, block.in_channels}:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, SlicedConv(block).train(block.training))
            count += 1
    return count
