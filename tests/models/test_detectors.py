"""Networks that branch on what they find: traced in parts, in eval mode only, and compared inside. Slow."""

from __future__ import annotations

import pytest

import spdify

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


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_converts(name: str) -> None:
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
