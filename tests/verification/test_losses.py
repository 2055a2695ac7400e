"""Losses of detectors: the same for the same targets and seed, and a wrong weight is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from spdify.engine import apply
from spdify.graph.detectors import Detector
from spdify.verification import losses, model_proof
from tests.detectors import SHAPE, one_stage, single_shot, two_stages, with_keypoints, with_masks
from tests.verification.breaking import with_a_wrong_weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan

FIGURES = ("losses, train", "gradients of losses, train", "statistics, train")


@pytest.mark.parametrize("make", [two_stages, with_masks, with_keypoints, one_stage, single_shot])
def test_they_are_equal(make: Callable[[], nn.Module], convert: Callable) -> None:
    checks = convert(make(), SHAPE).prove()
    assert {name: checks[name].outcome for name in FIGURES} == dict.fromkeys(FIGURES, "passed")
    assert "whole model, train" not in checks
    assert "made-up targets" in checks["losses, train"].detail


@pytest.mark.parametrize("make", [two_stages, one_stage])
def test_a_wrong_weight_is_caught(
    make: Callable[[], nn.Module], convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = convert(make(), SHAPE)
    monkeypatch.setattr(model_proof, "apply_lazily", with_a_wrong_weight(-1))
    assert conversion.prove()["losses, train"].outcome == "failed"


def test_a_wrong_gradient_is_caught(convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        if plan.applied:
            converted.get_submodule("backbone.2").register_forward_hook(lambda _m, _a, y: 0.5 * y + 0.5 * y.detach())
        return converted

    conversion = convert(two_stages(), SHAPE)
    monkeypatch.setattr(model_proof, "apply_lazily", stopped)
    checks = conversion.prove()
    assert (checks["losses, train"].outcome, checks["gradients of losses, train"].outcome) == ("passed", "failed")


def test_level_site_makes_no_training_step(convert: Callable) -> None:
    checks = convert(one_stage(), SHAPE).prove("site")
    assert checks["whole model, train"].outcome == "not run"
    assert "losses, train" not in checks


def test_targets_lie_in_their_images() -> None:
    detector = Detector(7, (), masks=True, keypoints=3)
    images = torch.randn(2, 3, 64, 50, dtype=torch.float64)
    (cut, targets), named = losses.training_inputs(detector, ((images,), {}), seed=0)
    assert not named
    assert [tuple(image.shape) for image in cut] == [(3, 63, 43), (3, 55, 49)]
    for image, target in zip(cut, targets, strict=True):
        _, height, width = image.shape
        x0, y0, x1, y1 = target["boxes"].unbind(1)
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)).all()
        assert ((target["labels"] >= 1) & (target["labels"] < 7)).all()
        assert target["masks"].shape == (losses.BOXES_PER_IMAGE, height, width)
        assert target["keypoints"].shape == (losses.BOXES_PER_IMAGE, 3, 3)
    again = losses.training_inputs(detector, ((images,), {}), seed=0)[0][1]
    assert torch.equal(again[1]["boxes"], targets[1]["boxes"])


def test_other_losses_are_an_error() -> None:
    one = torch.tensor(1.0)
    assert losses.loss_error({"a": one}, {"b": one}) == float("inf")
    assert losses.loss_error({"a": one, "b": 100 * one}, {"a": 1.5 * one, "b": 100 * one}) == 0.5
    assert losses.losses_of([one]) == {}
