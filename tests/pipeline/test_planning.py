"""Conversions on a budget, whole: proved, saved with ONNX, loaded, replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import spdify
from spdify.blocks import SPDPointwiseConv
from spdify.bundle import read_record, read_report
from spdify.errors import CheckFailedError, NothingToConvertError, UsageError
from spdify.pipeline import planning
from spdify.records import Budget, LatencyCheck, Limit

if TYPE_CHECKING:
    from pathlib import Path

    from spdify.records import Report


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(2)
        self.conv, self.short = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(8, 16, 1, 2)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.stem(x))))
        return self.head(torch.relu(self.conv(x) + self.short(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


EXAMPLE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
AMPLE = ("macs=+150%", "params=+150%")
GROUPED = ["strided-conv.kernel=minimal", "strided-conv.pointwise=grouped"]


def test_whole_way(net: Net, tmp_path: Path) -> None:
    """With a grouped convolution over phases: proved, exported, saved, loaded, and the plan replayed."""
    conversion = spdify.convert(net, example_input=EXAMPLE, budget=AMPLE, overrides=GROUPED)
    block = conversion.model.get_submodule("short")
    assert isinstance(block, SPDPointwiseConv)
    assert block.mixed == 8
    checks = {check.name: check for check in conversion.checks}
    assert all(check.outcome == "passed" for check in conversion.checks)
    budget = conversion.plan.budget
    assert budget is not None
    report = conversion.report
    assert checks["budget macs=+150%"].value == report.after.macs - report.before.macs == budget.spent("macs")
    assert checks["budget params=+150%"].tolerance == budget.limits[1].allowed

    record = conversion.save(tmp_path / "out")
    assert record.onnx is not None
    assert all(check.outcome == "passed" for check in record.onnx.checks)
    assert read_record(tmp_path / "out").plans[-1].budget == budget
    assert read_report(tmp_path / "out").budget == budget
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Budget" in text
    assert "| short | 8×8 | grouped |" in text

    loaded = spdify.load(tmp_path / "out", model=Net())
    torch.testing.assert_close(loaded(EXAMPLE), net(EXAMPLE))
    replayed = spdify.apply(net, conversion.plan)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in replayed.state_dict().items())
    trained = conversion.model
    nn.init.normal_(block.phase_weight)
    torch.testing.assert_close(spdify.fuse(trained)(EXAMPLE), trained(EXAMPLE), rtol=1e-4, atol=1e-4)


def test_a_budget_as_one_string(net: Net) -> None:
    conversion = spdify.convert(net, example_input=EXAMPLE, budget="macs=+3%", prefer="cheapest")
    assert conversion.plan.budget is not None
    assert conversion.plan.budget.prefer == "cheapest"
    assert 1 <= len(conversion.plan.applied) < 4


def test_a_report_without_doing_it(net: Net) -> None:
    report = spdify.report(net, example_input=EXAMPLE, budget=AMPLE)
    assert report.budget is not None
    assert report.after.macs - report.before.macs == report.budget.spent("macs")
    with pytest.raises(NothingToConvertError, match="nothing can be bought"):
        spdify.report(net, example_input=EXAMPLE, budget="params=+0%", overrides=["strided-conv.pointwise=dense"])


def test_a_converted_network_on_a_budget_again(net: Net) -> None:
    once = spdify.convert(net, example_input=EXAMPLE, budget="macs=+3%", prefer="short")
    again = spdify.convert(once.model, example_input=EXAMPLE, budget="macs=+200%")
    assert len(once.plan.applied) + len(again.plan.applied) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "macs=5"}, "nothing can be bought"),
        ({"budget": "macs=5%"}, "has a . before it"),
        ({"prefer": "last"}, "cannot prefer 'last' without a budget"),
        ({"budget": "macs=+5%", "width_factor": 2.0}, "cannot keep to a budget and scale at once"),
        ({"budgets": "macs=+5%"}, "cannot use the argument budgets"),
    ],
)
def test_faults(net: Net, options: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, NothingToConvertError), match=message):
        spdify.convert(net, example_input=EXAMPLE, **options)  # type: ignore[arg-type]


def test_a_bundle_gives_the_report_it_was_saved_with(net: Net, tmp_path: Path) -> None:
    spdify.convert(net, example_input=EXAMPLE).save(tmp_path / "out", onnx=False)
    with pytest.raises(UsageError, match="cannot report"):
        spdify.report(tmp_path / "out", budget="macs=+5%")


def limited(report: Report, quantity: str, allowed: float, *, latency: LatencyCheck | None = None) -> Report:
    limit = Limit.model_validate({"text": "it", "quantity": quantity, "original": 0.1, "allowed": allowed})
    return report.model_copy(update={"budget": Budget(limits=(limit,), prefer="last", sites=(), latency=latency)})


def test_a_budget_that_was_not_kept_fails(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    report = spdify.report(net, example_input=EXAMPLE)
    more = report.after.params - report.before.params
    assert [planning.budget_checks(limited(report, "params", x))[0].outcome for x in (more, more - 1)] == [
        "passed",
        "failed",
    ]
    slow = LatencyCheck(rounds=3, ratio=1.2, low=1.1, high=1.3, threads=1, device="cpu")
    assert planning.budget_checks(limited(report, "latency", 0.021, latency=slow))[0].outcome == "passed"
    assert planning.budget_checks(limited(report, "latency", 0.019, latency=slow))[0].outcome == "failed"
    assert planning.budget_checks(limited(report, "latency", 0.1))[0].outcome == "not run"

    # A form whose price is wrong must not get through.
    within = planning.plan_within

    def cheated(*args: object, **options: object) -> object:
        plan = within(*args, **options)  # type: ignore[arg-type]
        assert plan.budget is not None
        limits = tuple(limit.model_copy(update={"allowed": 1}) for limit in plan.budget.limits)
        return plan.model_copy(update={"budget": plan.budget.model_copy(update={"limits": limits})})

    monkeypatch.setattr(planning, "plan_within", cheated)
    with pytest.raises(CheckFailedError, match="budget macs"):
        spdify.convert(net, example_input=EXAMPLE, budget="macs=+50%")
