"""Networks that branch on what they find: traced in parts, compared inside; detectors by their losses too. Slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import spdify

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"min_size": 96, "max_size": 128}
#: Network → sites, input size, arguments, whether it trains on images alone.
CASES = {
    "tv:fasterrcnn_mobilenet_v3_large_320_fpn": (6, (3, 96, 96), SMALL, False),
    "tv:retinanet_resnet50_fpn": (10, (3, 96, 96), SMALL, False),
    "tv:fcos_resnet50_fpn": (10, (3, 96, 96), SMALL, False),
    "tv:ssdlite320_mobilenet_v3_large": (9, (3, 96, 96), {}, False),
    "tv:raft_small": (13, (3, 128, 128), {}, True),
    "tv:swin3d_t": (1, (3, 8, 64, 64), {}, True),
    "tv:quantized_mobilenet_v2": (5, (3, 96, 96), {}, True),
}


#: Written as ONNX as well; small ones of the other kinds are in tests/exporting/test_scripted.py.
WRITTEN = ("tv:fasterrcnn_mobilenet_v3_large_320_fpn", "tv:retinanet_resnet50_fpn")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_converts(name: str, tmp_path: Path) -> None:
    sites, size, kwargs, trains = CASES[name]
    conversion = spdify.convert(name, input_size=size, model_kwargs=kwargs)
    plan = conversion.plan
    assert len(plan.decisions) == sites
    # What is refused are the functional calls; every called module is converted.
    assert {d.action for d in plan.decisions if not d.site.operation} == {"applied"}
    assert all(d.site.modes == (("eval", "train") if trains else ("eval",)) for d in plan.applied)
    outcomes = {check.name: check.outcome for check in conversion.checks}
    assert "failed" not in outcomes.values()
    assert (outcomes["whole model, eval"], outcomes["live sites"]) == ("passed", "passed")
    assert outcomes["own weights, float32"] == "passed"
    if not trains:
        trained = ("losses, train", "gradients of losses, train", "statistics, train")
        assert {outcomes[check] for check in trained} == {"passed"}
    if name in WRITTEN:
        onnx = conversion.save(tmp_path / "saved").onnx
        assert onnx is not None
        assert (onnx.file, onnx.dynamic_batch) == ("model.onnx", False)
        assert {c.name: c.outcome for c in onnx.checks}["onnx perturbed weights"] == "passed"
