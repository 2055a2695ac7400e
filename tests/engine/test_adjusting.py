"""Modules that are given their new channels: what a plan may ask of them, and what it may not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spdify.blocks import SPDGroupNorm
from spdify.engine.adjusting import adjust
from spdify.errors import PlanError
from spdify.records import Adjustment, Layout, TensorChange

FOUR = Layout(runs=((6, 4),))
REPEATED = TensorChange(name="weight", axis=0, change="repeat", layout=FOUR)


def test_a_norm_gets_its_channels() -> None:
    model = nn.Sequential(nn.BatchNorm2d(6))
    model[0].weight.requires_grad_(False)
    model[0].weight.copy_(torch.arange(6.0))
    changes = tuple(REPEATED.model_copy(update={"name": n}) for n in ("weight", "bias", "running_mean", "running_var"))
    adjust(
        model,
        Adjustment(path="0", type_name="BatchNorm2d", role="carrier", tensors=changes, numbers={"num_features": 24}),
    )
    assert model[0].num_features == 24
    assert model[0].weight.tolist()[:5] == [0, 0, 0, 0, 1]
    assert not model[0].weight.requires_grad
    assert model(torch.randn(2, 24, 3, 3)).shape == (2, 24, 3, 3)


def test_a_group_norm_becomes_one_of_phases_under_all_its_names() -> None:
    model = nn.ModuleDict({"a": nn.GroupNorm(3, 6)})
    model["b"] = model["a"]
    changes = (REPEATED, REPEATED.model_copy(update={"name": "bias"}))
    adjust(
        model,
        Adjustment(
            path="a", aliases=("b",), type_name="GroupNorm", role="carrier", tensors=changes,
            numbers={"num_channels": 24}, block="SPDGroupNorm",
        ),
    )  # fmt: skip
    assert isinstance(model["a"], SPDGroupNorm)
    assert model["a"] is model["b"]
    assert model["a"].copies == 4


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"path": "1"}, "no module"),
        ({"type_name": "GroupNorm"}, "a BatchNorm2d"),
        ({"tensors": (REPEATED.model_copy(update={"name": "nothing"}),)}, "no tensor nothing"),
        ({"numbers": {"training": 1}}, "no training"),
        ({"numbers": {"__class__": 1}}, "no __class__"),
        ({"numbers": {"in_channels": 1}}, "no in_channels"),
        ({"block": "SPDGroupNorm"}, "no place for a SPDGroupNorm"),
        ({"block": "os.system"}, "no place for a os.system"),
    ],
)
def test_a_plan_for_another_model_is_refused(change: dict[str, object], found: str) -> None:
    fitting = Adjustment(path="0", type_name="BatchNorm2d", role="carrier")
    with pytest.raises(PlanError, match=found):
        adjust(nn.Sequential(nn.BatchNorm2d(6)), fitting.model_copy(update=change))


def test_an_activation_becomes_another() -> None:
    model = nn.Sequential(nn.ReLU()).eval()
    adjust(model, Adjustment(path="0", type_name="ReLU", role="carrier", block="silu"))
    assert isinstance(model[0], nn.SiLU)
    assert not model[0].training
