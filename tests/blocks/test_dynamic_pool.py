"""DynOPool against its definition, and what all blocks share whose size is learned."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import DynamicConv, DynamicPool
from spdify.blocks.dynamic_pool import cells
from spdify.blocks.fusing import fused
from spdify.blocks.learned_size import leaders_of, try_sizes
from spdify.graph.structure import fake_copy, lazy_copy


def value_at(row: list[float], point: float) -> float:
    point = min(max(point, 0.0), len(row) - 1.0)
    low = min(int(point), len(row) - 1)
    high = min(low + 1, len(row) - 1)
    return row[low] + (point - low) * (row[high] - row[low])


def by_definition(x: torch.Tensor, ratios: tuple[float, float]) -> torch.Tensor:
    """Give, for one map, the maximum of four samples a quarter of a cell around each centre; cell by cell."""
    sizes = [math.ceil(n * r - 0.5) for n, r in zip(x.shape, ratios, strict=True)]
    result = torch.zeros(sizes, dtype=x.dtype)
    for i, j in product(*map(range, sizes)):
        centre = [(k + 0.5) / r - 0.5 for k, r in zip((i, j), ratios, strict=True)]
        delta = [0.25 / r for r in ratios]
        found = []
        for a, b in product((-1, 1), repeat=2):
            row = [value_at(column.tolist(), centre[0] + a * delta[0]) for column in x.unbind(1)]
            found.append(value_at(row, centre[1] + b * delta[1]))
        result[i, j] = max(found)
    return result


def at(ratios: tuple[float, float]) -> DynamicPool:
    block = DynamicPool().double()
    with torch.no_grad():
        block.ratio.copy_(torch.tensor(ratios, dtype=torch.float64))
    return block


@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0.4, 0.7), (0.75, 0.3), (0.28, 1.0)])
def test_the_definition(ratios: tuple[float, float]) -> None:
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    y = at(ratios)(x)
    for n, c in product(range(2), range(3)):
        torch.testing.assert_close(y[n, c], by_definition(x[n, c], ratios))


def test_at_one_half_it_is_a_max_pool_of_two() -> None:
    block = DynamicPool().double()
    for size in product(range(2, 8), repeat=2):
        x = torch.randn(2, 3, *size, dtype=torch.float64).relu().requires_grad_()  # with ties
        mine, plain = block(x), F.max_pool2d(x, 2)
        assert torch.equal(mine, plain)
        cotangent = torch.randn_like(plain)
        found, expected = (torch.autograd.grad(y, x, cotangent, retain_graph=True)[0] for y in (mine, plain))
        assert torch.equal(found, expected)
    assert DynamicPool(3)(torch.randn(1, 2, 4, 6, 8)).shape == (1, 2, 2, 3, 4)
    up = DynamicPool(1, up=True)
    assert up(torch.randn(1, 2, 7)).shape == (1, 2, 4)


def test_sizes() -> None:
    assert [cells(n, 0.5, up=False) for n in (1, 2, 7, 8)] == [1, 1, 3, 4]
    assert [cells(n, 0.5, up=True) for n in (1, 2, 7, 8)] == [1, 1, 4, 4]
    assert [cells(10, r, up=False) for r in (-1.0, 0.0, 0.24, 0.26, 1.0, 7.0)] == [1, 1, 2, 3, 10, 10]


def test_the_gradient_of_the_ratio_is_that_of_the_samples() -> None:
    # Within an interval in which neither size nor samples' neighbours change.
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    weights = torch.randn(1, 2, 5, 5, dtype=torch.float64)

    def loss(r: float) -> torch.Tensor:
        block = at((r, r))
        return (block(x) * weights).sum()

    block = at((0.61, 0.61))
    (block(x) * weights).sum().backward()
    assert block.ratio.grad is not None
    step = 1e-7
    slope = (loss(0.61 + step) - loss(0.61 - step)) / (2 * step)
    torch.testing.assert_close(block.ratio.grad.sum(), slope, rtol=1e-4, atol=1e-6)


def test_a_ratio_beyond_its_bounds_comes_back() -> None:
    for ratio, size in ((3.0, 64), (-1.0, 4)):
        block = at((ratio, ratio))
        y = block(torch.randn(1, 2, 64, 64, dtype=torch.float64))
        assert y.shape[-1] == size
        y.sum().backward()
        assert block.ratio.grad is not None
        assert block.ratio.grad.ne(0).all()


class Branches(nn.Module):
    """Two paths that meet, at one level; the second leads no more than its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.short = DynamicConv(3, 4, 3, 2, 1), DynamicConv(3, 4, 1, leads=False)
        self.short.follow(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.short(x)  # type: ignore[no-any-return]


def test_who_follows_has_no_parameter_and_the_same_size() -> None:
    model, x = Branches(), torch.randn(2, 3, 9, 9)
    assert [name for name, _ in model.named_parameters()] == [
        "conv.weight", "conv.bias", "conv.ratio", "short.weight", "short.bias",
    ]  # fmt: skip
    for ratio, size in ((0.5, 5), (0.3, 3), (0.8, 7)):
        model.conv.fill((ratio, ratio))
        assert model(x).shape == (2, 4, size, size)
    model(x).sum().backward()
    assert model.conv.ratio.grad is not None


@pytest.mark.parametrize("copied", [copy.deepcopy, lazy_copy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301 - made here
def test_copies_follow_their_own_leader(copied: object) -> None:
    model, x = Branches(), torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        model.conv.ratio.fill_(0.3)
    twin: Branches = copied(model)  # type: ignore[operator]
    assert twin.short.leader is twin.conv
    assert twin.conv.known == model.conv.known == pytest.approx((0.3, 0.3)), "as the parameter was when it was copied"
    twin.conv.fill((0.8, 0.8))
    assert (model(x).shape[-1], twin(x).shape[-1]) == (3, 7)


def test_without_data_the_last_numbers_count() -> None:
    model = Branches()
    state = model.state_dict() | {"conv.ratio": torch.full((2,), 0.3)}
    model.load_state_dict(state)
    fake, mode = fake_copy(model)
    with mode:
        assert fake(torch.empty(1, 3, 9, 9)).shape == (1, 4, 3, 3)
    program = torch.export.export(model.eval(), (torch.randn(1, 3, 9, 9),))
    x = torch.randn(1, 3, 9, 9)
    torch.testing.assert_close(program.module()(x), model(x))
    meta = copy.deepcopy(model).to("meta")
    assert meta(x.to("meta")).shape == (1, 4, 3, 3)


def test_the_deployed_form_has_a_frozen_size() -> None:
    model, x = Branches(), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        model.conv.ratio.copy_(torch.tensor((0.3, 0.8)))
    expected = model(x)
    for name in ("conv", "short"):
        form = fused(model.get_submodule(name))
        assert form is not None
        assert "ratio" not in dict(form.named_parameters())
        setattr(model, name, form)
    assert not list(leaders_of(model))
    assert torch.equal(model(x), expected)


def test_trying_sizes() -> None:
    model = Branches()
    assert try_sizes(model)
    assert model.conv.known != (0.5, 0.5)
    assert model(torch.randn(1, 3, 30, 30)).shape[-1] != 15
    assert not try_sizes(nn.Conv2d(3, 4, 3))


def test_every_weight_learns() -> None:
    model, x = Branches().double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.ne(0).all()) for p in model.parameters())
        optimizer.step()
