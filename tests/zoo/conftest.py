"""Records of models that were never run: for the folder and the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spdify.records import Check, InputSpec, Measure
from spdify.zoo.records import Failure, RunRecord, SiteGroup, SweepSettings, ZooRecord

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def run_record() -> RunRecord:
    return RunRecord(settings=SweepSettings(), names=4, names_sha256="0" * 64, versions={"torch": "2.14.0"})


@pytest.fixture
def make_record() -> Callable[..., ZooRecord]:
    """Give a function that makes a converted model's record; keywords change it."""

    def make(name: str, **changes: object) -> ZooRecord:
        applied = SiteGroup(
            operator="conv", window="conv2d 3x3 s2 p1", type_name="Conv2d", action="applied",
            rewrite="replace-strided-conv", count=3, example="stem",
        )  # fmt: skip
        fields: dict[str, object] = {
            "name": name,
            "family": f"timm.models.{name.partition(':')[2].partition('_')[0]}",
            "outcome": "exact",
            "inputs": (InputSpec(shape=(1, 3, 224, 224)),),
            "sites": (applied,),
            "before": Measure(params=100, macs=1000, activation_bytes=10, weight_bytes=400),
            "after": Measure(params=110, macs=1500, activation_bytes=12, weight_bytes=440),
            "proof": "model",
            "sites_proved": 3,
            "worst_site_error": 1e-15,
            "checks": (
                Check(name="nothing else left", outcome="passed", value=0.0),
                Check(name="whole model, eval", outcome="passed", value=3e-13, tolerance=1e-9),
            ),
            "seconds": {"survey": 1.5, "whole model": 2.5},
            "peak_memory_bytes": 2**30,
        }
        return ZooRecord.model_validate(fields | changes)

    return make


@pytest.fixture
def records(make_record: Callable[..., ZooRecord]) -> list[ZooRecord]:
    """One model of each outcome."""
    refused = SiteGroup(
        operator="max_pool", window="max_pool2d 3x3 s2", type_name="MaxPool2dSame", action="refused",
        reason="its own | forward", count=2, example="pool",
    )  # fmt: skip
    first = make_record("timm:a_1")
    failure = Failure(stage="survey", kind="TraceError", message="cannot trace\nmore")
    nothing: dict[str, object] = {"after": None, "proof": "none", "sites_proved": 0, "worst_site_error": None}
    return [
        first,
        make_record(
            "timm:a_2", outcome="partial", sites=(*first.sites, refused), proof="site", proof_note="9.0 GMACs: so"
        ),
        make_record("timm:b", outcome="nothing", sites=(), checks=(), **nothing),
        make_record("torchvision:c", outcome="failed", failure=failure, sites=(), checks=(), before=None, **nothing),
    ]
