"""A conversion and its proof in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from spdify.engine import apply, make_plan
from spdify.graph import fingerprint, survey
from spdify.records import Inputs, InputSpec
from spdify.rulebook import load_rulebook
from spdify.verification import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spdify.graph import Survey
    from spdify.records import Check, Plan

SHAPE = (3, 19, 18)


@dataclass
class Conversion:
    """All that a proof needs."""

    model: nn.Module
    plan: Plan
    converted: nn.Module
    before: Survey
    shape: tuple[int, ...] = SHAPE

    def inputs(self, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(3)
        return (torch.randn(2, *self.shape, generator=generator).to(dtype),), {}

    def prove(self, level: str = "model") -> dict[str, Check]:
        proof = prove(self.model, self.converted, self.plan, self.before, self.inputs, level=level, seed=0)  # type: ignore[arg-type]
        return {check.name: check for check in proof.checks}


@pytest.fixture
def convert() -> Callable[..., Conversion]:
    """Convert a model with the default rulebook; `max_pool` chooses what becomes of max pools."""

    def make(model: nn.Module, shape: tuple[int, ...] = SHAPE, *, max_pool: str = "tournament") -> Conversion:
        inputs = Inputs(args=(InputSpec(shape=(1, *shape)),))
        before = survey(model, inputs)
        book = load_rulebook("spd")
        rules = [
            rule.model_copy(update={"params": {"form": max_pool}}) if rule.name == "max-pool" else rule
            for rule in book.rules
        ]
        book = book.model_copy(update={"rules": tuple(rules)})
        plan = make_plan(before, book, fingerprint=fingerprint(model), inputs=inputs)
        return Conversion(model, plan, apply(model, plan), before, shape)

    return make


class Net(nn.Module):
    """A residual network with a dead branch, dropout and every kind of strided site, fresh from its constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=True), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.branch = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        nn.init.zeros_(self.branch[1].weight)  # type: ignore[arg-type]
        self.down = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(6, 8, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 5)."""
        x = self.pool(self.stem(x))
        return self.head((self.branch(x) + self.down(x)).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    """Make the network."""
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: many wait for each other on networks as small as these, the more so beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
