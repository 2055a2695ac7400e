from __future__ import annotations

import itertools

import pytest
import torch

from spdify.errors import UsageError
from spdify.training import make_recipe
from spdify.training.optimizing import make_optimizer, make_schedule, parameter_groups
from tests.training.networks import small

BASE = make_recipe(
    "finetune", {"epochs": 4, "lr": 0.1, "new_lr_factor": 5.0, "weight_decay": 0.01, "warmup_epochs": 0.0}
)


def rates(**changes: object) -> list[float]:
    """Give the rate of the carried weights at each of 4 epochs of 10 steps."""
    optimizer = make_optimizer(small(), BASE.model_copy(update=changes), ["fc.weight"])
    schedule = make_schedule(optimizer, BASE.model_copy(update=changes), 10)
    found = []
    for update in range(40):
        if schedule is not None:
            schedule.step(update)
        found.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[-1]["lr"] >= found[-1]
    return found


def test_groups() -> None:
    network = small()
    network.conv2.bias.requires_grad_(False)
    groups = parameter_groups(network, BASE, {"fc.weight", "fc.bias"})
    by_tensor = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    names = {name: by_tensor.get(id(p)) for name, p in network.named_parameters()}
    assert names == {
        "conv1.weight": (0.1, 0.01), "bn1.weight": (0.1, 0.0), "bn1.bias": (0.1, 0.0), "conv2.weight": (0.1, 0.01),
        "conv2.bias": None, "fc.weight": (0.5, 0.01), "fc.bias": (0.5, 0.0),
    }  # fmt: skip
    every = parameter_groups(network, BASE.model_copy(update={"decay_all": True}), ())
    assert {g["weight_decay"] for g in every} == {0.01}


def test_cosine_falls_to_nothing() -> None:
    found = rates()
    assert found[0] == pytest.approx(0.1)
    assert found[20] == pytest.approx(0.05)
    assert all(a > b for a, b in itertools.pairwise(found))
    assert found[-1] < 0.001


def test_warm_up_then_cosine() -> None:
    found = rates(warmup_epochs=1.0)
    assert found[0] == pytest.approx(0.001)
    assert all(a < b for a, b in itertools.pairwise(found[:10]))
    assert max(found) == pytest.approx(0.1, rel=0.2)
    short = rates(epochs=1, warmup_epochs=3.0)[:10]
    assert max(short) > 0.04  # half of the only epoch is left


def test_steps() -> None:
    found = rates(sched="step", milestones=(0.5, 0.75), decay_rate=0.1)
    assert found[:20] == [pytest.approx(0.1)] * 20
    assert found[20:30] == [pytest.approx(0.01)] * 10
    assert found[30:] == [pytest.approx(0.001)] * 10


def test_constant() -> None:
    assert rates(sched="constant") == [pytest.approx(0.1)] * 40
    assert rates(sched="constant", warmup_epochs=1.0)[10:] == [pytest.approx(0.1)] * 30


def test_rates_depend_on_the_step_alone() -> None:
    optimizer = make_optimizer(small(), BASE, ())
    schedule = make_schedule(optimizer, BASE, 10)
    assert schedule is not None
    schedule.step(25)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rates()[25])


def test_plain_momentum_is_not_nesterov() -> None:
    optimizer = make_optimizer(small(), make_recipe("paper-cifar10"), ())
    assert isinstance(optimizer, torch.optim.SGD)
    assert {g["nesterov"] for g in optimizer.param_groups} == {False}


def test_faults() -> None:
    with pytest.raises(UsageError, match="cannot make the optimizer 'best'"):
        make_optimizer(small(), BASE.model_copy(update={"optimizer": "best"}), ())
    with pytest.raises(UsageError, match="second derivatives"):
        make_optimizer(small(), BASE.model_copy(update={"optimizer": "adahessian"}), ())
    frozen = small().requires_grad_(False)
    with pytest.raises(UsageError, match="every parameter of the network is frozen"):
        make_optimizer(frozen, BASE, ())
