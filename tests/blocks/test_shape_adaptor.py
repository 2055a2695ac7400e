"""Shape adaptors against their definition."""

from __future__ import annotations

import copy
import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import AdaptedConv, AdaptedPool
from spdify.blocks.fusing import fused
from spdify.blocks.shape_adaptor import positions


def resized(x: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    """Interpolate along an axis by matrix: row i has the shares of the two positions around its centre."""
    n = x.shape[axis]
    matrix = torch.zeros(count, n, dtype=x.dtype)
    for i in range(count):
        centre = max((i + 0.5) * n / count - 0.5, 0.0)
        low = min(int(centre), n - 1)
        matrix[i, low] += 1 - (centre - low)
        matrix[i, min(low + 1, n - 1)] += centre - low
    return (matrix @ x.movedim(axis, -2)).movedim(-2, axis) if axis != -1 else x @ matrix.T


def by_definition(x: torch.Tensor, pooled: torch.Tensor, alpha: float) -> torch.Tensor:
    share = 1 / (1 + math.exp(-alpha))
    sizes = [math.floor((0.5 + 0.5 * share) * n) for n in x.shape[-2:]]
    both = [resized(resized(y, -2, sizes[0]), -1, sizes[1]) for y in (pooled, x)]
    return (1 - share) * both[0] + share * both[1]


@pytest.mark.parametrize("alpha", [-6.0, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)], ids=["max", "avg"])
def test_the_definition(pool: nn.Module, alpha: float) -> None:
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    block = AdaptedPool(pool, start=alpha).double()
    torch.testing.assert_close(block(x), by_definition(x, pool(x), alpha))


def test_without_a_share_it_is_the_pool_or_the_strided_convolution() -> None:
    conv = nn.Conv2d(4, 6, 3, 2, 1, groups=2).double()
    block = AdaptedConv(4, 6, 3, 2, 1, groups=2, start=-50.0).double()
    block.load_state_dict(conv.state_dict(), strict=False)
    point, short = nn.Conv2d(4, 6, 1, 2).double(), AdaptedConv(4, 6, 1, start=-50.0).double()
    short.load_state_dict(point.state_dict(), strict=False)
    for size in product(range(6, 10), repeat=2):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(block(x), conv(x))
        torch.testing.assert_close(short(x), point(x))
        torch.testing.assert_close(AdaptedPool(nn.MaxPool2d(2), start=-50.0)(x), F.max_pool2d(x, 2))
        wide = AdaptedPool(nn.MaxPool2d(3, 2, 1), up=True, start=-50.0)
        torch.testing.assert_close(wide(x), F.max_pool2d(x, 3, 2, 1))


def test_sizes() -> None:
    assert [positions(n, -6.0, up=False) for n in (1, 7, 8, 400)] == [1, 3, 4, 200]
    assert [positions(n, -6.0, up=True) for n in (1, 7, 8, 400)] == [1, 4, 4, 200]
    assert positions(500, -6.0, up=True) == 251, "too large for the share at the start"
    assert positions(8, 0.0, up=False) == 6
    assert positions(8, 50.0, up=True) == 8


@pytest.mark.parametrize("dims", [1, 3])
def test_other_numbers_of_axes(dims: int) -> None:
    pool: nn.Module = nn.MaxPool1d(2) if dims == 1 else nn.MaxPool3d(2)
    block = AdaptedPool(pool, dims, start=0.0)
    assert block(torch.ones(2, 3, *(8,) * dims)).shape == (2, 3, *(6,) * dims)
    torch.testing.assert_close(block(torch.ones(2, 3, *(8,) * dims)), torch.ones(2, 3, *(6,) * dims))


def test_every_weight_learns_and_sizes_grow() -> None:
    block, x = AdaptedConv(3, 4, 3, 2, 1).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    optimizer = torch.optim.SGD(block.parameters(), lr=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.ne(0).all()) for p in block.parameters())
        optimizer.step()
    sizes = []
    for alpha in (-6.0, -1.0, 0.0, 3.0):
        block.fill((alpha,))
        sizes.append(block(x).shape[-1])
    assert sizes == [5, 6, 7, 9]


def test_followers_and_the_deployed_form() -> None:
    model = nn.ModuleList([AdaptedConv(3, 4, 3, 2, 1), AdaptedConv(3, 4, 1, leads=False)])
    model[1].follow(model[0])  # type: ignore[operator]
    twin = copy.deepcopy(model)
    twin[0].fill((0.0,))  # type: ignore[operator]
    x = torch.randn(1, 3, 9, 9)
    assert [block(x).shape[-1] for block in (*model, *twin)] == [5, 5, 7, 7]
    for block in twin:
        form = fused(block)
        assert form is not None
        assert "alpha" not in form.state_dict()
        assert torch.equal(form(x), block(x))
