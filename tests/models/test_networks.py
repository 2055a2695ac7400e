"""Whole networks: converted, proved, saved with ONNX, reloaded. Slow: some four minutes in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import spdify
from spdify.sources import example_inputs

if TYPE_CHECKING:
    from pathlib import Path

#: Network → number of sites, all of which are rewritten exactly. From an independent count of the zoo.
SITES = {
    "resnet18": 8,
    "resnet50d": 8,
    "densenet121": 5,
    "vgg16_bn": 5,
    "mobilenetv2_100": 5,
    "efficientnet_b0": 5,
    "regnety_004": 9,
    "convnext_tiny": 4,
    "vit_tiny_patch16_224": 1,
    "tv:squeezenet1_1": 4,
    "tv:shufflenet_v2_x1_0": 8,
}
#: As above, at a size that spares the two cores.
SMALLER = {
    "resnet50": (8, (3, 160, 160)),
    "mobilenetv3_small_100": (5, (3, 193, 225)),
    "tv:r3d_18": (7, (3, 8, 56, 56)),
}
CASES = [(name, count, None) for name, count in SITES.items()] + [(n, c, s) for n, (c, s) in SMALLER.items()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "size"), CASES, ids=[case[0] for case in CASES])
def test_converts_proves_exports_and_reloads(
    name: str, count: int, size: tuple[int, ...] | None, tmp_path: Path
) -> None:
    conversion = spdify.convert(name, input_size=size)
    assert len(conversion.plan.decisions) == len(conversion.plan.applied) == count
    assert {d.claim.value for d in conversion.plan.applied if d.claim is not None} == {"exact"}
    outcomes = {check.name: check.outcome for check in conversion.checks}
    # Not run where the network keeps no statistics, or, fresh, hardly looks at its input (shufflenet).
    allowed = {key: {"passed", "not run"} for key in ("statistics, train", "own weights, float32")}
    assert all(outcome in allowed.get(check, {"passed"}) for check, outcome in outcomes.items()), outcomes
    record = conversion.save(tmp_path / "out")
    assert record.onnx is not None
    assert record.onnx.dynamic_batch
    assert {check.outcome for check in record.onnx.checks} == {"passed"}
    loaded = spdify.load(tmp_path / "out")
    state, saved = loaded.state_dict(), conversion.model.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[key], saved[key]) for key in saved)
    args, _ = example_inputs(conversion.plan.inputs, batch=2, seed=3)
    with torch.no_grad():
        # Not to the last bit: how a convolution is computed depends on where its weights lie in memory.
        expected, actual = conversion.model(*args), loaded(*args)
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


#: Classes of timm with a forward of their own; at a small size, proved whole.
ADAPTED = {
    "tf_efficientnet_b0": (5, 65),  # same padding
    "nf_resnet26": (8, 64),  # scaled weight standardisation
    "dm_nfnet_f0": (8, 64),  # with same padding
    "resnetv2_50x1_bit": (8, 96),  # weight standardisation
    "vit_small_r26_s32_224": (8, 64),  # a hybrid
    "resnetblur50": (8, 64),  # blur pools
    "tf_mixnet_s": (13, 64),
    "nasnetalarge": (37, 96),  # same-padded pools of both kinds
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTED)
def test_classes_with_a_forward_of_their_own(name: str) -> None:
    count, size = ADAPTED[name]
    level = "site" if name == "nasnetalarge" else "model"
    conversion = spdify.convert(name, input_size=(3, size, size), num_classes=10, proof=level)
    assert len(conversion.plan.decisions) == len(conversion.plan.applied) == count
    assert {d.claim.value for d in conversion.plan.applied if d.claim is not None} == {"exact"}
    outcomes = {check.name: check.outcome for check in conversion.checks}
    assert "failed" not in outcomes.values()
    if level == "model":
        assert all(outcomes[f"whole model, {mode}"] == "passed" for mode in ("train", "eval"))
        assert (outcomes["live sites"], outcomes["gradients"]) == ("passed", "passed")


@pytest.mark.slow
def test_conditional_convolutions_export_at_one_batch_as_the_original_does(tmp_path: Path) -> None:
    conversion = spdify.convert("tf_efficientnet_cc_b0_4e", input_size=(3, 64, 64), num_classes=10)
    assert len(conversion.plan.applied) == 5
    record = conversion.save(tmp_path / "out")
    assert record.onnx is not None
    assert not record.onnx.dynamic_batch
    assert "failed" not in {check.outcome for check in record.onnx.checks}
    loaded = spdify.load(tmp_path / "out")
    assert all(torch.equal(t, conversion.model.state_dict()[k]) for k, t in loaded.state_dict().items())
