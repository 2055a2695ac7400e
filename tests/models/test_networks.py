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
