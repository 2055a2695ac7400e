"""Deformable convolutions against the sum that defines them, read position by position."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import DeformableConv2d

#: in, out, kernel, stride, padding, dilation, groups, offset groups
GEOMETRIES: list[tuple[Any, ...]] = [
    (4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, 2),
    (4, 4, (3, 3), (2, 2), (1, 1), (1, 1), 4, 1),
]


def made(geometry: tuple[Any, ...], *, modulated: bool, bias: bool = True) -> DeformableConv2d:
    *window, groups, offset_groups = geometry
    block = DeformableConv2d(*window, groups=groups, offset_groups=offset_groups, modulated=modulated, bias=bias)
    return block.double()


def read(x_CHW: Tensor, y: float, x: float) -> Tensor:
    """Read all channels between positions: the four around, by area; zero outside."""
    total = torch.zeros(x_CHW.shape[0], dtype=x_CHW.dtype)
    for i, j in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= i < x_CHW.shape[1] and 0 <= j < x_CHW.shape[2]:
            total += (1 - abs(y - i)) * (1 - abs(x - j)) * x_CHW[:, i, j]
    return total


def defined(block: DeformableConv2d, x: Tensor) -> Tensor:
    """Sum over taps, for every position by itself."""
    offset = block.offset(x)
    n, _, height, width = offset.shape
    taps = math.prod(block.kernel_size)
    offset = offset.reshape(n, block.offset_groups, taps, 2, height, width)
    mask = torch.ones(n, block.offset_groups, taps, height, width, dtype=x.dtype)
    if block.mask is not None:
        mask = 2 / (1 + torch.exp(-block.mask(x).reshape_as(mask)))
    parts = block.in_channels // block.offset_groups
    out = torch.zeros(n, block.out_channels, height, width, dtype=x.dtype)
    places = itertools.product(range(n), range(height), range(width))
    for b, i, j in places:
        columns = torch.zeros(block.in_channels, taps, dtype=x.dtype)
        for tap, group in itertools.product(range(taps), range(block.offset_groups)):
            row, column = divmod(tap, block.kernel_size[1])
            dy, dx = offset[b, group, tap, :, i, j].tolist()
            y = i * block.stride[0] - block.padding[0] + row * block.dilation[0] + dy
            z = j * block.stride[1] - block.padding[1] + column * block.dilation[1] + dx
            channels = slice(group * parts, (group + 1) * parts)
            columns[channels, tap] = read(x[b, channels], y, z) * mask[b, group, tap, i, j]
        weight = block.weight.flatten(2)
        inside, outside = weight.shape[1], block.out_channels // block.groups
        for o in range(block.out_channels):
            first = o // outside * inside
            out[b, o, i, j] = (weight[o] * columns[first : first + inside]).sum()
    return out if block.bias is None else out + block.bias[:, None, None]


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_is_the_sum_over_moved_taps(geometry: tuple[Any, ...], modulated: bool) -> None:
    block, x = made(geometry, modulated=modulated), torch.randn(2, 4, 5, 6, dtype=torch.float64)
    layers = [block.offset] if block.mask is None else [block.offset, block.mask]
    for parameter in (p for layer in layers for p in layer.parameters()):
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        torch.testing.assert_close(block(x), defined(block, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_starts_as_a_convolution(geometry: tuple[Any, ...], modulated: bool) -> None:
    block = made(geometry, modulated=modulated, bias=False)
    for size in ((9, 11), (8, 7)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        expected = F.conv2d(x, block.weight, None, block.stride, block.padding, block.dilation, block.groups)
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_every_weight_learns_at_once() -> None:
    block = made(GEOMETRIES[1], modulated=True)
    block(torch.randn(2, 4, 9, 11, dtype=torch.float64)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("groups", "offset_groups"), [(3, 1), (1, 3)])
def test_groups_have_equal_shares(groups: int, offset_groups: int) -> None:
    with pytest.raises(ValueError, match="into 3 groups"):
        DeformableConv2d(4, 4, (3, 3), groups=groups, offset_groups=offset_groups)
