from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spdify.errors import ExportError
from spdify.records import OnnxRecord
from spdify.rulebook import load_rulebook
from spdify.zoo import exports
from spdify.zoo.exports import candidates, export_family

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Measure
    from spdify.zoo.records import ZooRecord

FINE = OnnxRecord(file="model.onnx", opset=20, dynamic_batch=True)
MODELS = ("timm:test_resnet", "timm:test_vit")


def test_the_cheapest_converted_models_of_a_family_come_first(make_record: Callable[..., ZooRecord]) -> None:
    def costs(macs: int) -> dict[str, Measure | None]:
        before = make_record("timm:x").before
        return {"before": before.model_copy(update={"macs": macs}) if before else None}

    records = [
        make_record("timm:a_3", **costs(30)), make_record("timm:a_1", **costs(10)),
        make_record("timm:a_2", **costs(10)),
        make_record("timm:a_4", **costs(40)), make_record("timm:a_0", outcome="failed", **costs(1)),
        make_record("timm:b_1", outcome="nothing"),
    ]  # fmt: skip
    assert candidates(records, "family") == {"timm.models.a": ("timm:a_1", "timm:a_2", "timm:a_3")}
    assert set(candidates(records, "all")) == {f"timm:a_{n}" for n in (1, 2, 3, 4)}
    assert candidates(records, "none") == {}


@pytest.mark.parametrize(
    ("broken", "outcomes"),
    [
        ((), ["passed"]),
        (("converted",), ["failed"]),
        (("converted", "original"), ["original fails too", "original fails too"]),
    ],
)
def test_a_failure_is_the_conversion_s_where_the_original_exports(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...], outcomes: list[str]
) -> None:
    def export(*_: object, original: object = None, **__: object) -> OnnxRecord:
        if ("original" if original is None else "converted") in broken:
            raise ExportError("no such operator")
        return FINE

    monkeypatch.setattr(exports, "export_onnx", export)
    record = export_family("x", MODELS, load_rulebook("spd"))
    assert [attempt.outcome for attempt in record.attempts] == outcomes
    assert record.outcome == outcomes[-1]
    assert ("no such operator" in record.attempts[0].detail) is bool(broken)


def test_a_model_that_cannot_be_built_is_a_failure() -> None:
    record = export_family("x", ["timm:no_such_model"], load_rulebook("spd"))
    assert record.outcome == "failed"
    assert "before the export" in record.attempts[0].detail
