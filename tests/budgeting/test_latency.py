"""Latency: what is timed against what, and what is done with the figures. No test asserts a real timing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spdify.benchmarking import forward_of, paired_seconds
from spdify.budgeting.latency import as_if_trained
from spdify.engine import fuse
from spdify.errors import NothingToConvertError
from tests.budgeting.networks import FakeClock, Planner, chosen

# The fake whole network takes 100 ms, so 10 ms are allowed by +10%.
SECONDS = {"original": 0.001, "minimal": 0.003, "odd": 0.009, "separable": 0.002, "grouped": 0.0025, "dense": 0.02}
SECONDS |= {"tournament": 0.002, "depthwise": 0.0005}


@pytest.fixture
def net() -> Planner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1, 2), nn.Conv2d(8, 8, 3, 2, 1)
        ).eval()
    return Planner(model, 64)


def test_each_form_is_timed_beside_the_operator(net: Planner) -> None:
    clock = FakeClock(SECONDS)
    plan = net("latency=+10%", clock=clock)
    assert clock.asked == [
        ("original",),
        ("original", "minimal", "odd"),
        ("original", "tournament"),
        ("original", "separable", "grouped", "dense"),
        ("original", "minimal", "odd"),
        ("original", "converted"),
    ]
    # 2 + 1 + 1 + 2 of 10 ms; then odd for 6 more does not fit, and grouped does for half a millisecond.
    assert chosen(plan) == {"0": "minimal", "1": "tournament", "2": "grouped", "3": "minimal"}
    assert plan.budget is not None
    assert plan.budget.spent("latency") == pytest.approx(0.0065)
    assert plan.budget.latency is not None
    assert (plan.budget.latency.ratio, plan.budget.latency.taken_back) == (1.0, 0)
    assert plan.budget.latency.threads == torch.get_num_threads()
    assert plan.budget.latency.rounds == 15


def test_other_limits_hold_beside_it(net: Planner) -> None:
    plan = net("latency=+10%", "params=+100", clock=FakeClock(SECONDS))
    assert plan.budget is not None
    assert plan.budget.spent("params") <= 100
    assert plan.budget.spent("latency") <= 0.01


def test_what_makes_the_whole_too_slow_is_taken_back(net: Planner) -> None:
    plan = net("latency=+10%", clock=FakeClock(SECONDS, [1.3, 1.2, 1.09]))
    # Five purchases: grouped, then the last convolution are undone.
    assert chosen(plan) == {"0": "minimal", "1": "tournament", "2": "separable", "3": "keep"}
    assert plan.budget is not None
    assert plan.budget.latency is not None
    assert (plan.budget.latency.taken_back, plan.budget.latency.ratio) == (2, pytest.approx(1.09))
    assert "as measured, was too slow" in plan.decisions[3].reason


def test_where_the_whole_is_never_fast_enough(net: Planner) -> None:
    with pytest.raises(NothingToConvertError, match=r"with 0 alone \(minimal\) the whole network takes \+30.0% longer"):
        net("latency=+10%", clock=FakeClock(SECONDS, [1.3] * 5))


def test_where_no_form_is_fast_enough(net: Planner) -> None:
    with pytest.raises(NothingToConvertError, match=r"the cheapest is 1 \(tournament\) for 1 ms latency") as fault:
        net("latency=+0.5ms", clock=FakeClock(SECONDS))
    assert "latency=+1" in fault.value.hint


def test_every_kind_of_site_can_be_timed(small: Planner) -> None:
    state = torch.random.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    plan = small("latency=+100ms", clock=FakeClock(SECONDS))
    assert "keep" not in chosen(plan).values()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in small.model.state_dict().items())


def test_a_site_that_is_called_twice_takes_twice_as_long(small: Planner) -> None:
    plan = small("latency=+100ms", clock=FakeClock(SECONDS))
    assert plan.budget is not None
    twice = next(site for site in plan.budget.sites if site.site == "twice")
    assert twice.cost("minimal", "latency") == pytest.approx(0.004)


def test_weights_as_if_trained_do_not_fold_back() -> None:
    from spdify.blocks import SPDPointwiseConv

    block = nn.Sequential(SPDPointwiseConv(4, 8))
    kept = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    assert type(fuse(block).get_submodule("0")) is nn.Conv2d
    assert type(fuse(as_if_trained(block)).get_submodule("0")) is nn.Sequential
    assert all(torch.equal(tensor, kept[name]) for name, tensor in block.state_dict().items())
    twice = [dict(as_if_trained(block).named_parameters()) for _ in range(2)]
    assert all(torch.equal(tensor, twice[1][name]) for name, tensor in twice[0].items())


def test_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = paired_seconds(calls, rounds=3, least_seconds=0.0)
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}
    assert order[-6:] == ["a", "b"] * 3
    assert all(seconds >= 0 for found in times.values() for seconds in found)


def test_forward_passes_need_no_gradients() -> None:
    out = forward_of(nn.Linear(2, 2), torch.zeros(1, 2))()
    assert isinstance(out, torch.Tensor)
    assert not out.requires_grad
