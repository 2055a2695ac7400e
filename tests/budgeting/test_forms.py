"""Forms and their prices: what the final report measures, to the digit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import spdify
from spdify.budgeting.amounts import read_wishes
from spdify.budgeting.choosing import choose, in_order, with_purchases
from spdify.budgeting.forms import site_options
from spdify.engine import apply, plan_model
from spdify.graph.census import take_census
from spdify.reporting import make_report
from spdify.rulebook import load_rules
from tests.budgeting.networks import Planner, chosen, meta_model
from tests.engine.networks import Adapted

if TYPE_CHECKING:
    from spdify.records import Plan

PLENTY = "macs=+900T"


def names(planner: Planner, rules: str = "spd", **fixed: str) -> dict[str, list[str]]:
    plan = plan_model(planner.model, planner.survey, load_rules(rules), inputs=planner.inputs)
    options, _ = site_options(planner.model, plan, {rule.replace("_", "-"): {param} for rule, param in fixed.items()})
    return {site.site: [form.name for form in site.forms] for site in options}


def require_priced(planner: Planner, plan: Plan) -> None:
    """Hold that every limit holds and that the sums are what the report measures."""
    converted = apply(planner.model, plan)
    after = take_census(converted, planner.inputs, mode="eval")
    report = make_report("it", planner.model, planner.survey.census, converted, after, plan)
    assert report.budget is not None
    assert report.after.macs - report.before.macs == report.budget.spent("macs")
    assert report.after.params - report.before.params == report.budget.spent("params")
    for limit in report.budget.limits:
        more = getattr(report.after, limit.quantity) - getattr(report.before, limit.quantity)
        assert more <= limit.allowed
    costs = {cost.name: cost for cost in report.sites}
    for site in report.budget.sites:
        if site.chosen != "keep" and "#" not in site.site:
            cost = costs[site.site]
            assert cost.after.macs - cost.before.macs == site.cost(site.chosen, "macs")
            assert cost.after.params - cost.before.params == site.cost(site.chosen, "params")


def test_every_kind_of_site(small: Planner) -> None:
    found = names(small)
    assert found["patch"] == ["minimal", "odd"]
    assert found["pool"] == ["tournament"]
    assert found["conv"] == ["minimal", "odd"]
    assert found["short"] == ["separable", "grouped", "dense"]
    assert found["twice"] == ["minimal", "odd"]
    assert found["mean"] == ["depthwise"]
    assert found["#forward:conv2d:0"] == ["minimal"], "an odd one is not offered for functional calls"
    assert found["#forward:slice:0"] == ["depthwise"]
    assert len(found) == 10


def test_forms_that_make_the_same_block_are_one() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, 2, 2), nn.Conv2d(4, 4, 1, 2, groups=4), nn.Conv2d(4, 9, 3, 2), nn.Conv2d(9, 5, 1, 2)
    )
    found = names(Planner(net, 64))
    assert found == {"0": ["minimal"], "1": ["minimal"], "2": ["minimal", "odd"], "3": ["separable", "dense"]}
    standard = Planner(net, 64)(PLENTY, overrides=("strided-conv.pointwise=grouped",)).budget
    assert standard is not None
    assert [(site.standard, len(site.forms)) for site in standard.sites][3] == ("grouped", 1), (
        "9 channels: one at a time"
    )


def test_a_patch_costs_nothing(small: Planner) -> None:
    plan = small("macs=+0%", "params=+0%")
    assert chosen(plan)["patch"] == "minimal"
    assert plan.budget is not None
    assert (plan.budget.spent("macs"), plan.budget.spent("params")) == (0, 0)


@pytest.mark.parametrize("form", ["plainest", "richest"])
def test_prices_of_every_kind_of_site(small: Planner, form: str) -> None:
    plan = small(PLENTY) if form == "richest" else small("macs=+1%", "params=+3%")
    require_priced(small, plan)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("resnet18", 96),
        ("mobilenetv3_small_050", 64),
        ("densenet121", 64),
        pytest.param("tf_efficientnet_cc_b0_4e", 64, marks=pytest.mark.slow),
        pytest.param("hrnet_w18_small", 64, marks=pytest.mark.slow),
        pytest.param("nf_resnet50", 64, marks=pytest.mark.slow),
    ],
)
def test_no_budget_is_exceeded_and_every_price_is_right(model: str, size: int) -> None:
    """Over budgets from nothing to more than all, without a single weight."""
    planner = Planner(meta_model(model), size)
    everything = planner(PLENTY)
    require_priced(planner, everything)
    assert everything.budget is not None
    sites, before = everything.budget.sites, 0
    whole = {kind: sum(max(f.cost[kind] for f in site.forms) for site in sites) for kind in ("macs", "params")}
    for percent in range(0, 101, 5):
        wishes = read_wishes([f"macs=+{int(whole['macs'] * percent / 100)}", f"params=+{int(whole['params'])}"])
        limits = [wish.limit(10**9) for wish in wishes]
        found = with_purchases(sites, choose(in_order(sites, "resolution", limits), limits))
        for limit in limits:
            assert sum(site.cost(site.chosen, limit.quantity) for site in found) <= limit.allowed
        before += sum(site.chosen != "keep" for site in found)
    assert before > len(sites) * 10
    require_priced(planner, planner(f"macs=+{int(whole['macs'] / 5)}", f"params=+{int(whole['params'] / 2)}"))


def test_prices_of_classes_with_a_forward_of_their_own() -> None:
    planner = Planner(Adapted().eval(), 32)
    plan = planner(PLENTY)
    assert {site.name for site in planner.survey.sites} == set(chosen(plan))
    require_priced(planner, plan)
    require_priced(planner, planner("macs=+10%"))


def test_rules_that_ask_for_more(resnet50: Planner) -> None:
    """The paper's rulebook: its max pool is approximate, and so for no budget to buy; dense is its standard form."""
    plan = resnet50(PLENTY, rules="spd-paper")
    assert plan.budget is not None
    found = {site.site: site for site in plan.budget.sites}
    assert "maxpool" not in found
    assert found["layer2.0.downsample.0"].standard == "dense"
    assert found["conv1"].standard == "odd"
    pool = next(d for d in plan.decisions if d.site.name == "maxpool")
    assert pool.action == "kept"
    assert pool.reason.startswith("left out by the budget: replace-max-pool has no exact form")


def test_what_changes_other_layers_is_not_for_sale(resnet50: Planner) -> None:
    plan = resnet50(PLENTY, rules="spd-released")
    conv = next(d for d in plan.decisions if d.site.name == "layer2.0.conv2")
    assert conv.action in {"kept", "applied"}
    assert all(d.leaves is None for d in plan.applied)


def test_parameters_set_by_hand_stay(resnet50: Planner) -> None:
    plan = resnet50(PLENTY, overrides=("strided-conv.kernel=minimal", "max-pool.form=keep"))
    found = chosen(plan)
    assert found["conv1"] == found["layer2.0.conv2"] == "minimal"
    assert found["layer2.0.downsample.0"] == "dense"
    assert "maxpool" not in found
    assert next(d for d in plan.decisions if d.site.name == "maxpool").reason == 'max pools stay (form = "keep")'
    odd = resnet50("macs=+4%", overrides=("spd/strided-conv.kernel=odd",))
    assert set(chosen(odd).values()) <= {"odd", "keep", "separable", "grouped", "tournament"}
    assert chosen(odd)["conv1"] == "odd"


class ChannelsLast(nn.Module):
    """Subsamples a map whose channels lie last, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x).permute(0, 2, 3, 1)[:, ::2, ::2]
        return y.mean((1, 2))


def test_a_slice_of_channels_last_has_a_price() -> None:
    conversion = spdify.convert(ChannelsLast().eval(), budget=("macs=+500%",), input_size=(3, 32, 24), proof="site")
    budget = conversion.plan.budget
    assert budget is not None
    sizes = {options.site: options.size for options in budget.sites}
    assert [size for site, size in sizes.items() if site != "conv"] == [(16, 12)]
    report = conversion.report
    assert budget.spent("macs") == report.after.macs - report.before.macs
    assert len(conversion.plan.applied) == 2
