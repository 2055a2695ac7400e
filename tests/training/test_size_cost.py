"""What learned sizes cost, as a term of the loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from spdify.blocks import DeformableConv2d, DynamicConv, DynamicPool
from spdify.errors import UsageError
from spdify.records import Inputs, InputSpec
from spdify.training import SizeCost, make_recipe, size_cost_of
from tests.training.networks import HOW, small
from tests.training.test_trainer import BASE, trainer

if TYPE_CHECKING:
    from spdify.blocks.learned_size import LearnedSize

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 16, 16)),))


class Learned(nn.Module):
    """Three areas and two levels: (N, 3, 16, 16) to (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 8, 3, 1, 1), DynamicPool()
        self.second, self.third = DynamicConv(8, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 1, 1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.pool(self.first(x).relu()))
        return self.fc(self.third(x.relu()).relu().mean((2, 3)))  # type: ignore[no-any-return]


def by_hand(pool: tuple[float, float], second: tuple[float, float]) -> float:
    """Give the GMACs: of 16x16, 8x8 and 4x4 positions, the last two of them shrunk by what comes before."""
    at_16, at_8, at_4 = 256 * 8 * 27, 64 * 8 * 72, 16 * 16 * 72
    first, both = math.prod(pool) / 0.25, math.prod(pool) / 0.25 * math.prod(second) / 0.25
    return (at_16 + at_8 * first + at_4 * both) / 1e9


def filled(pool: tuple[float, float], second: tuple[float, float]) -> tuple[Learned, SizeCost]:
    network = Learned()
    cost = SizeCost(network, INPUTS)
    network.double()
    network.pool.fill(pool)
    network.second.fill(second)
    return network, cost


@pytest.mark.parametrize(
    ("pool", "second"), [((0.5, 0.5), (0.5, 0.5)), ((0.3, 0.6), (0.5, 0.4)), ((0.9, 1.0), (0.2, 0.5))]
)
def test_the_cost(pool: tuple[float, float], second: tuple[float, float]) -> None:
    _, cost = filled(pool, second)
    assert cost().item() == pytest.approx(by_hand(pool, second))


def test_the_gradient_against_differences() -> None:
    pool, second, step = (0.3, 0.6), (0.5, 0.4), 1e-6
    network, cost = filled(pool, second)
    cost().backward()
    found = torch.cat([level.ratio.grad for level in (network.pool, network.second)])  # type: ignore[misc]
    whole = [*pool, *second]
    for i, gradient in enumerate(found.tolist()):
        high, low = ([*whole[:i], whole[i] + sign * step, *whole[i + 1 :]] for sign in (1, -1))
        slope = (by_hand(tuple(high[:2]), tuple(high[2:])) - by_hand(tuple(low[:2]), tuple(low[2:]))) / (2 * step)  # type: ignore[arg-type]
        assert gradient == pytest.approx(slope, rel=1e-6)


def test_who_follows_counts_once() -> None:
    network = Learned()
    network.second.follow(network.pool)  # it would not be planned so; the numbers are what matters
    network.second.register_parameter("ratio", None)
    assert SizeCost(network, INPUTS)().item() == pytest.approx(by_hand((0.5, 0.5), (0.5, 0.5)))


def test_training_with_a_penalty_shrinks_sizes() -> None:
    torch.manual_seed(0)
    network = Learned()
    recipe = BASE.model_copy(update={"size_penalty": 1e4, "epochs": 2})
    made = trainer(network, recipe, size_cost=size_cost_of(network, recipe, HOW))
    before = made.run_epoch()
    ratios = torch.cat([network.pool.ratio.detach(), network.second.ratio.detach()])
    assert bool((ratios < 0.5).all())
    levels: tuple[LearnedSize, ...] = (network.pool, network.second)
    assert all(level.seen() == tuple(level.state_dict()["ratio"].tolist()) for level in levels)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 4)
    assert made.measured.eval()(torch.randn(2, 3, 16, 16)).shape == (2, 4)
    alone = trainer(Learned(), BASE).run_epoch()
    assert before.train_loss > alone.train_loss + 1e4 * 0.5 * by_hand((0.5, 0.5), (0.5, 0.5)), "the term is in the loss"


def test_a_network_that_learns_no_sizes() -> None:
    recipe = make_recipe("finetune", {"size_penalty": 0.1})
    with pytest.raises(UsageError, match="the network learns none"):
        size_cost_of(small(), recipe, HOW)
    assert size_cost_of(small(), make_recipe("finetune"), HOW) is None
    with pytest.raises(UsageError, match="size_penalty"):
        make_recipe("finetune", {"size_penalty": -1})


def test_deformable_convolutions_cost_as_ordinary_ones() -> None:
    plain, deformable = Learned(), Learned()
    deformable.third = DeformableConv2d(8, 16, (3, 3), (1, 1), (1, 1))  # type: ignore[assignment]
    more = SizeCost(deformable, INPUTS)().item() - SizeCost(plain, INPUTS)().item()
    positions = 27 * 16  # two offsets and a mask for each of nine taps, over 4x4 positions
    assert more == pytest.approx(positions * 72 / 1e9, rel=1e-4)
