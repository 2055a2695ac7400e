"""Plans within a budget: where what it buys goes, and what is said where it buys nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torch import nn

from spdify.budgeting import BudgetSettings, plan_within
from spdify.engine import plan_model
from spdify.errors import NothingToConvertError, UsageError
from spdify.graph import survey
from spdify.records import Plan
from spdify.rulebook import load_rules
from tests.budgeting.networks import Planner, chosen, inputs_of, meta_model

if TYPE_CHECKING:
    from collections.abc import Callable


def test_what_a_budget_buys_goes_where_resolution_is_highest(resnet50: Planner) -> None:
    found = chosen(resnet50("macs=+5%"))
    assert found == {
        "conv1": "minimal",
        "maxpool": "tournament",
        "layer2.0.conv2": "minimal",
        "layer2.0.downsample.0": "grouped",
        "layer3.0.conv2": "keep",
        "layer3.0.downsample.0": "grouped",
        "layer4.0.conv2": "keep",
        "layer4.0.downsample.0": "grouped",
    }
    assert list(found) == [s.name for s in resnet50.survey.sites], "listed in order of execution"


def test_unless_something_else_is_preferred(resnet50: Planner) -> None:
    last = chosen(resnet50("macs=+5%", prefer="last"))
    assert (last["layer4.0.conv2"], last["layer3.0.conv2"], last["layer2.0.conv2"]) == ("minimal", "minimal", "keep")
    third = chosen(resnet50("macs=+2.3%", prefer="layer3.*"))
    assert {name for name, form in third.items() if form == "minimal"} == {"layer3.0.conv2"}
    cheapest = resnet50("macs=+3.3%", prefer="cheapest")
    assert len(cheapest.applied) >= len(resnet50("macs=+3.3%").applied)
    with pytest.raises(UsageError, match="cannot prefer 'layer9'"):
        resnet50("macs=+5%", prefer="layer9")
    with pytest.raises(UsageError, match="without a budget"):
        BudgetSettings.read((), "last")


def test_several_budgets_all_hold(resnet50: Planner) -> None:
    plan = resnet50("macs=+15%", "params=+1%")
    assert plan.budget is not None
    assert [limit.quantity for limit in plan.budget.limits] == ["macs", "params"]
    assert all(plan.budget.spent(limit.quantity) <= limit.allowed for limit in plan.budget.limits)
    assert chosen(plan)["layer4.0.conv2"] == "keep", "it would cost 7% of the parameters"
    assert chosen(resnet50("macs=+15%"))["layer4.0.conv2"] == "minimal"


def test_a_plan_says_why_a_site_stays(resnet50: Planner) -> None:
    plan = resnet50("macs=+5%")
    kept = plan.with_action("kept")
    assert [d.site.name for d in kept] == ["layer3.0.conv2", "layer4.0.conv2"]
    assert kept[0].reason == "left out by the budget: minimal costs 89.92 M MACs, 59.87 M are left"
    assert plan.rulebook == "spd-budget"
    assert plan.rulebook_source == "arXiv:2208.03641, section 3"


def test_enough_for_all_is_the_plan_without_a_budget(resnet50: Planner) -> None:
    """In their standard forms: with nothing left for richer ones, the decisions are those of the rules."""
    rules = plan_model(resnet50.model, resnet50.survey, load_rules("spd"), inputs=resnet50.inputs)
    with pytest.raises(NothingToConvertError) as fault:
        resnet50("macs=+0%")
    every = fault.value.hint.split("standard form: --budget ")[1].rstrip(".")
    plan = resnet50(every, overrides=("strided-conv.pointwise=separable", "strided-conv.kernel=minimal"))
    assert [(d.action, d.rewrite, d.params) for d in plan.decisions] == [
        (d.action, d.rewrite, d.params) for d in rules.decisions
    ]


@pytest.mark.parametrize("budget", [("macs=+0.001%",), ("params=+0%",), ("macs=+0.001%", "params=+0.001%")])
def test_too_little_says_what_is_feasible(resnet50: Planner, budget: tuple[str, ...]) -> None:
    with pytest.raises(NothingToConvertError, match="nothing can be bought with") as fault:
        resnet50(*budget)
    assert fault.value.exit_code == 4
    assert budget[0] in fault.value.message
    one, every = (
        [word.rstrip(".") for word in part.split() if "=" in word]
        for part in fault.value.hint.split(" For all 8 sites")
    )
    assert len(one) == len(every) == len(budget)
    assert len(resnet50(*one).applied) >= 1
    assert len(resnet50(*every).applied) == 8


def test_a_total_below_what_there_is(resnet50: Planner) -> None:
    with pytest.raises(NothingToConvertError, match=r"macs=3G \(as it is it has MACs 4.089 G\)"):
        resnet50("macs=3G")


def test_rules_that_leave_nothing_to_buy() -> None:
    planner = Planner(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)), 16)
    message = "nothing can be bought with macs=.900%: 1: replace-max-pool has no exact form that the rules allow"
    with pytest.raises(NothingToConvertError, match=message):
        planner("macs=+900%", rules="spd-paper")


def test_without_sites_there_is_nothing_to_buy() -> None:
    plan = Planner(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 16)("macs=+5%")
    assert (plan.applied, plan.budget) == ((), None), "the caller says so"


def test_refusals_stay_refusals() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    model[1].register_forward_hook(lambda *_: None)
    plan = Planner(model, 16)("macs=+500%")
    assert [d.action for d in plan.decisions] == ["applied", "refused"]
    assert "hook" in plan.decisions[1].reason


def test_the_record_reads_back(resnet50: Planner, plan_for: Callable[..., Plan]) -> None:
    plan = resnet50("macs=+5%", "params=5%".replace("=", "=+"))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    older = plan_for(nn.Sequential(nn.Conv2d(3, 4, 3, 2)), 1, 3, 8, 8).model_dump(exclude={"budget"})
    assert Plan.model_validate(older).budget is None


def test_paths_with_globs_in_them() -> None:
    model = nn.Sequential()
    model.add_module("odd[0]*", nn.Conv2d(3, 4, 3, 2, 1))
    model.add_module("odd[0]x", nn.Conv2d(4, 4, 3, 2, 1))
    plan = Planner(model, 16)("macs=+60%")
    assert [d.action for d in plan.decisions] == ["applied", "kept"]
    assert [d.rule for d in plan.decisions] == ["odd-0", "odd-0-x"]


def test_blocks_behind_stages_are_bought_like_all_else() -> None:
    model, inputs, book = meta_model("resnet10t"), inputs_of(64), load_rules(("spd", "cbam"))
    seen = survey(model, inputs, book.kinds)
    for budget in ("macs=+6%", "params=+0.2%"):
        plan = plan_within(model, seen, book, BudgetSettings.read(budget, "resolution"), inputs=inputs, fixed={})
        assert plan.budget is not None
        bought = {site.site for site in plan.budget.sites if site.chosen != "keep"}
        assert bought == {d.site.name for d in plan.applied}
        assert any(d.site.inserted for d in plan.applied)
    assert len(bought) < len(plan.budget.sites)
