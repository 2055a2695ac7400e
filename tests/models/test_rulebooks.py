"""The rulebooks that change channels, on whole networks: exact where they say so, and where the channels go. Slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import spdify
from spdify.errors import NothingToConvertError

if TYPE_CHECKING:
    from pathlib import Path

#: Network → sites rewritten by `spd-released`, sites whose channels go on, modules that follow.
RELEASED = {
    "resnet18": (5, 3),
    "resnet50": (5, 3),
    "densenet121": (5, 0),
    "vgg16_bn": (5, 0),
    "mobilenetv2_100": (5, 4),
    "efficientnet_b0": (5, 4),
    "regnety_004": (5, 4),
    "convnext_tiny": (4, 0),
    "hrnet_w18_small": (23, 6),
    "inception_v3": (9, 4),
    "tv:shufflenet_v2_x1_0": (8, 6),
}
#: Network → average pools folded by `spd-fold`, those whose channels go on.
FOLDED = {
    "densenet121": (3, 0),
    "resnet50d": (3, 3),
    "tv:densenet121": (3, 0),
    "coat_lite_tiny": None,
    "vgg16_bn": None,
}
SIZES = {"inception_v3": (3, 171, 171), "coat_lite_tiny": (3, 224, 224)}
EXACT = ("whole model, train", "statistics, train", "whole model, eval", "live sites", "gradients")


def saved_and_proved(conversion: spdify.Conversion, folder: Path) -> None:
    outcomes = {check.name: check.outcome for check in conversion.checks}
    if not any("running_mean" in name for name in conversion.model.state_dict()):  # ConvNeXt keeps no statistics
        assert outcomes.pop("statistics, train") == "not run"
        outcomes["statistics, train"] = "passed"
    assert {name: outcomes[name] for name in EXACT} == dict.fromkeys(EXACT, "passed")
    record = conversion.save(folder)
    assert record.onnx is not None
    assert {c.outcome for c in record.onnx.checks} == {"passed"}
    loaded = spdify.load(folder)
    for name, tensor in conversion.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_the_released_order_is_exact(name: str, tmp_path: Path) -> None:
    size = SIZES.get(name, (3, 160, 160))
    conversion = spdify.convert(name, rules="spd-released", input_size=size)
    applied = conversion.plan.applied
    assert (len(applied), sum(d.leaves is not None for d in applied)) == RELEASED[name]
    assert not conversion.plan.with_action("refused")
    saved_and_proved(conversion, tmp_path / "bundle")


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDED)
def test_folded_average_pools_are_exact(name: str, tmp_path: Path) -> None:
    size = SIZES.get(name, (3, 160, 160))
    expected = FOLDED[name]
    options = {"rules": "spd-fold", "overrides": ["pool.max_pool=keep"], "input_size": size}
    if expected is None:
        with pytest.raises(NothingToConvertError):
            spdify.convert(name, **options)
        return
    conversion = spdify.convert(name, **options)
    applied = conversion.plan.applied
    assert (len(applied), sum(d.leaves is not None for d in applied)) == expected
    saved_and_proved(conversion, tmp_path / "bundle")


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["spd-paper", "spd-fold"])
def test_max_pools_as_means_are_said_to_be_approximate(rules: str, tmp_path: Path) -> None:
    conversion = spdify.convert("vgg16_bn", rules=rules, input_size=(3, 64, 64))
    assert {d.claim.value for d in conversion.plan.applied if d.claim} == {"approximate"}
    outcomes = {check.name: check.outcome for check in conversion.checks}
    assert outcomes["whole model, eval"] == "not run"
    assert outcomes["distance to the original"] == "measured"
    record = conversion.save(tmp_path / "bundle")
    assert record.onnx is not None
    assert {c.outcome for c in record.onnx.checks} == {"passed"}
