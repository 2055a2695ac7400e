"""Spatial transformers against PyTorch's affine grid, and against the network by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import SpatialTransformer
from spdify.blocks.spatial_transformer import averaged, transformed

SIZES = [(9, 11), (16, 7), (3, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_it_samples_where_an_affine_grid_says(size: tuple[int, int]) -> None:
    x, change = torch.randn(2, 3, *size, dtype=torch.float64), 0.4 * torch.randn(2, 6, dtype=torch.float64)
    theta = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64) + change.view(2, 2, 3)
    grid = F.affine_grid(theta, [2, 3, *size], align_corners=False)
    expected = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(transformed(x, change), expected, rtol=1e-10, atol=1e-10)


def test_a_shift_by_one_position() -> None:
    x = torch.arange(12.0, dtype=torch.float64).view(1, 1, 3, 4)
    change = torch.tensor([[0, 0, 2 / 4, 0, 0, 0]], dtype=torch.float64)  # two is the whole width
    expected = torch.tensor([[1.0, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]], dtype=torch.float64)
    torch.testing.assert_close(transformed(x, change)[0, 0], expected)


@pytest.mark.parametrize("size", SIZES)
def test_parts_have_equal_areas(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    # Each position as 4×4 equal ones: what belongs to a part is then whole.
    fine = x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(averaged(x, 4), F.avg_pool2d(fine, size), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [4, 5])
def test_the_network_that_chooses(width: int) -> None:
    block, x = SpatialTransformer(3, width=width).double(), torch.randn(2, 3, 32, 64, dtype=torch.float64)
    nn.init.normal_(block.fc2.weight, std=0.2)
    y = x
    for layer in (block.conv1, block.conv2, block.conv3):
        y = F.relu(F.conv2d(y, layer.weight, layer.bias, stride=2, padding=1))
    y = F.relu(block.fc1(F.adaptive_avg_pool2d(y, 4).flatten(1)))
    change = y @ block.fc2.weight.T + block.fc2.bias
    torch.testing.assert_close(block(x), transformed(x, change), rtol=1e-6, atol=1e-6)
    assert (block.conv1.out_channels, block.conv3.out_channels, block.fc1.out_features) == (width, 2 * width, 2 * width)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 5e-5)])
def test_it_starts_as_the_identity_at_the_borders_too(dtype: torch.dtype, tolerance: float) -> None:
    for size in (*SIZES, (224, 223)):
        x = torch.randn(2, 3, *size, dtype=dtype)
        with torch.no_grad():
            error = (SpatialTransformer(3).to(dtype)(x) - x).abs().max() / x.abs().max()
        assert float(error) < tolerance


def test_every_weight_learns_after_one_step() -> None:
    torch.manual_seed(0)
    block = SpatialTransformer(3, width=4)
    optimizer = torch.optim.SGD(block.parameters(), lr=1e-3)
    x = torch.randn(2, 3, 32, 40)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        optimizer.step()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
