"""Networks to put on a budget, and what a survey finds in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.budgeting import BudgetSettings, plan_within
from spdify.graph import survey
from spdify.records import Inputs, InputSpec
from spdify.rulebook import load_rules, overridden, with_overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spdify.budgeting.latency import Clock
    from spdify.graph.sites import Survey
    from spdify.records import Plan

torch.set_num_threads(1)  # tiny networks: threads only get into each other's way


class Small(nn.Module):
    """A site of every kind, also functional calls, one module called twice, and one pool over two channel counts."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv = nn.Conv2d(8, 16, 3, 2, 1, groups=2)
        self.short = nn.Conv2d(8, 16, 1, 2, bias=False)
        self.twice = nn.Conv2d(16, 16, 3, 2, 1)
        self.mean = nn.AvgPool2d(2)
        self.weight = nn.Parameter(torch.randn(4, 16, 3, 3))
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        thumb = self.pool(x).mean()
        x = self.pool(self.patch(x))
        x = torch.relu(self.conv(x) + self.short(x))
        x = self.twice(self.twice(x)) + F.max_pool2d(F.avg_pool2d(x, 2), 2)
        x = F.conv2d(self.mean(x), self.weight, None, 2, 1)
        return self.head(x[:, :, ::2, ::2].mean((2, 3))) + thumb  # type: ignore[no-any-return]


def meta_model(name: str) -> nn.Module:
    """Build a model of timm without weights; a densenet with few layers, as many sites."""
    short = {"block_config": (2, 2, 2, 2)} if name.startswith("densenet") else {}
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, **short).eval()
    return model


def inputs_of(size: int) -> Inputs:
    return Inputs(args=(InputSpec(shape=(1, 3, size, size)),))


class Planner:
    """Plans one network under many budgets, looking at it once."""

    def __init__(self, model: nn.Module, size: int) -> None:
        self.model, self.inputs = model, inputs_of(size)
        self.survey: Survey = survey(model, self.inputs)

    def __call__(
        self,
        *budget: str,
        prefer: str = "resolution",
        rules: str = "spd",
        overrides: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> Plan:
        book = load_rules(rules)
        options: dict[str, Any] = {} if clock is None else {"clock": clock}
        return plan_within(
            self.model,
            self.survey,
            with_overrides(book, overrides),
            BudgetSettings.read(budget, prefer),
            inputs=self.inputs,
            fixed=overridden(book, overrides),
            **options,
        )


def chosen(plan: Plan) -> dict[str, str]:
    """Give the chosen form of each site."""
    assert plan.budget is not None
    return {site.site: site.chosen for site in plan.budget.sites}


class FakeClock:
    """Says what calls take without timing them; the whole network's ratios are given, one per comparison."""

    def __init__(self, seconds: dict[str, float], ratios: Sequence[float] = (1.0,)) -> None:
        self.seconds, self.ratios = seconds, list(ratios)
        self.asked: list[tuple[str, ...]] = []

    def __call__(
        self, contestants: dict[str, Callable[[], object]], /, *, rounds: int, least_seconds: float
    ) -> dict[str, list[float]]:
        assert least_seconds > 0
        self.asked.append(tuple(contestants))
        for call in contestants.values():
            call()
        if "converted" in contestants:
            ratio = self.ratios.pop(0)
            return {"original": [0.1] * rounds, "converted": [0.1 * ratio] * rounds}
        if set(contestants) == {"original"}:
            return {"original": [0.1] * rounds}
        return {name: [self.seconds.get(name, 0.0)] * rounds for name in contestants}
