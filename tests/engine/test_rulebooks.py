"""What the rulebooks of the folder decide about a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torchvision.models
from torch import nn

from spdify.engine import apply
from spdify.rulebook import load_rulebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan

SIDE = 64


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


def rules_of(plan: Plan) -> dict[str, tuple[str, str | None]]:
    return {d.site.path: (d.action, d.rule) for d in plan.decisions}


def test_the_released_order(plan_for: Callable[..., Plan], resnet: nn.Module) -> None:
    plan = plan_for(resnet, 1, 3, SIDE, SIDE, rulebook=load_rulebook("spd-released"))
    expected = {"conv1": ("applied", "stem"), "maxpool": ("applied", "max-pool")}
    for stage in (2, 3, 4):
        expected[f"layer{stage}.0.conv1"] = ("applied", "strided-conv")
        expected[f"layer{stage}.0.downsample.0"] = ("kept", "shortcut")
    assert rules_of(plan) == expected


def test_a_stage_is_no_stem_once_the_stem_is_replaced(plan_for: Callable[..., Plan], resnet: nn.Module) -> None:
    small = apply(resnet, plan_for(resnet, 1, 3, SIDE, SIDE, rulebook=load_rulebook("spd-lowres")))
    plan = plan_for(small, 1, 3, SIDE, SIDE, rulebook=load_rulebook("spd-released"))
    assert rules_of(plan)["layer2.0.conv1"] == ("applied", "strided-conv")
    assert {rule for _, rule in rules_of(plan).values()} == {"strided-conv", "shortcut"}


def test_the_stem_for_small_images(plan_for: Callable[..., Plan], resnet: nn.Module) -> None:
    plan = plan_for(resnet, 1, 3, SIDE, SIDE, rulebook=load_rulebook("spd-lowres"))
    applied = {d.site.path: d.claim and d.claim.value for d in plan.applied}
    assert applied == {"conv1": "reinitialised", "maxpool": "reinitialised"}
    small = apply(resnet, plan)
    sizes = {}
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer4"):
        small.get_submodule(name).register_forward_hook(lambda _, __, y, n=name: sizes.update({n: y.shape[-1]}))
    small(torch.randn(1, 3, SIDE, SIDE))
    assert sizes == {"conv1": 32, "maxpool": 32, "layer1": 32, "layer2": 16, "layer4": 4}, "as the released ones"
    assert small.get_submodule("conv1").get_parameter("weight").shape == (64, 12, 1, 1)


def test_the_form_of_the_paper(plan_for: Callable[..., Plan], resnet: nn.Module) -> None:
    plan = plan_for(resnet, 1, 3, SIDE, SIDE, rulebook=load_rulebook("spd-paper"))
    claims = {d.site.path: d.claim.value for d in plan.applied if d.claim}
    assert claims.pop("maxpool") == "approximate"
    assert set(claims.values()) == {"exact"}
    converted = apply(resnet, plan)
    x = torch.randn(1, 3, SIDE, SIDE)
    torch.testing.assert_close(converted.get_submodule("conv1")(x), resnet.get_submodule("conv1")(x))
    assert converted.get_submodule("conv1").get_parameter("weight").shape[2:] == (5, 5)
    assert converted.get_submodule("layer2.0.conv1").get_parameter("weight").shape[2:] == (3, 3)
    assert converted(x).shape == (1, 10)


def test_folding_leaves_convolutions_alone(plan_for: Callable[..., Plan], resnet: nn.Module) -> None:
    plan = plan_for(resnet, 1, 3, SIDE, SIDE, rulebook=load_rulebook("spd-fold"))
    rules = rules_of(plan)
    assert rules.pop("maxpool") == ("applied", "pool")
    assert set(rules.values()) == {("kept", None)}
