"""Detectors as ONNX: another exporter, said so, compared as sets; a wrong file is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from onnxscript import ir
from torch import Tensor, nn

from spdify.engine import apply
from spdify.errors import ExportError
from spdify.exporting import OnnxOptions, files
from spdify.exporting.examples import Example
from spdify.exporting.finding import spread_scores
from spdify.exporting.scripted import input_names, output_names
from spdify.exporting.weights import distinct
from tests.detectors import SHAPE, one_stage, single_shot, two_stages, with_keypoints, with_masks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spdify.records import OnnxRecord, Plan

    Export = Callable[..., OnnxRecord]


def inputs(batch: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    return (torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(1)),), {}


@pytest.fixture(params=[two_stages, one_stage, single_shot])
def pair(request: pytest.FixtureRequest, plan_for: Callable[..., Plan]) -> tuple[nn.Module, nn.Module]:
    """Give a detector and its conversion."""
    model = request.param()
    return model, apply(model, plan_for(model, 1, *SHAPE)).eval()


def test_it_is_written_and_says_how(pair: tuple[nn.Module, nn.Module], export: Export, tmp_path: Path) -> None:
    model, converted = pair
    before = {name: tensor.clone() for name, tensor in converted.state_dict().items()}
    options = OnnxOptions(metadata={"of": "mine"})
    record = export(converted, make_inputs=inputs, original=model, options=options)
    checks = {check.name: check for check in record.checks}
    assert (record.file, record.opset, record.dynamic_batch) == ("model.onnx", 20, False)
    assert "TorchScript" in record.note
    assert checks["dynamic batch"].outcome == "not run"
    for words in ("TorchScript exporter", "batch and size are fixed", "depends on data", "GuardOnDataDependent"):
        assert words in checks["dynamic batch"].detail
    assert checks["onnx checker"].outcome == checks["onnx perturbed weights"].outcome == "passed"
    assert "detections as a set" in checks["onnx perturbed weights"].detail
    written = onnx.load(tmp_path / "model.onnx")
    assert [value.name for value in written.graph.input] == ["images"]
    assert {value.name for value in written.graph.output} == {"boxes", "labels", "scores"}
    assert "backbone.0.weight" in {tensor.name for tensor in written.graph.initializer}
    assert {entry.key: entry.value for entry in written.metadata_props}["of"] == "mine"
    assert all(torch.equal(before[name], tensor) for name, tensor in converted.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "outputs"), [(with_masks, {"masks"}), (with_keypoints, {"keypoints", "keypoints_scores"})]
)
def test_masks_and_keypoints_are_compared(
    make: Callable[[], nn.Module], outputs: set[str], export: Export, tmp_path: Path
) -> None:
    record = export(make(), make_inputs=inputs)
    assert {check.name: check.outcome for check in record.checks}["onnx perturbed weights"] == "passed"
    written = onnx.load(tmp_path / "model.onnx")
    assert {value.name for value in written.graph.output} == {"boxes", "labels", "scores"} | outputs


def test_a_wrong_weight_in_the_file_is_caught(
    pair: tuple[nn.Module, nn.Module], export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ir.save

    def broken(model: ir.Model, path: Any, **how: Any) -> None:  # noqa: ANN401 - handed on
        weight = model.graph.initializers["backbone.3.weight"]
        assert weight.const_value is not None
        array = weight.const_value.numpy().copy()
        array[0] *= 1.5
        weight.const_value = ir.tensor(array, name=weight.name)
        save(model, path, **how)

    monkeypatch.setattr(files.ir, "save", broken)
    record = export(pair[1], make_inputs=inputs)
    assert record.file == "model.unverified.onnx"
    assert {c.name: c.outcome for c in record.checks}["onnx perturbed weights"] == "failed"


def test_own_weights_that_find_nothing_do_not_pass(export: Export) -> None:
    model = two_stages()
    model.roi_heads.score_thresh = 1.1  # type: ignore[union-attr, assignment]
    record = export(model, make_inputs=inputs)
    outcomes = {check.name: check.outcome for check in record.checks}
    assert outcomes["onnx batch 1"] == outcomes["onnx perturbed weights"] == "not run"
    assert record.file == "model.unverified.onnx"


def test_opsets_beyond_the_exporter_are_refused(export: Export) -> None:
    with pytest.raises(ExportError, match="opset 20 at most, asked for is 21"):
        export(one_stage(), make_inputs=inputs, options=OnnxOptions(opset=21))


def test_half_precision_keeps_the_first_reason(export: Export) -> None:
    with pytest.raises(ExportError):
        export(one_stage(), make_inputs=inputs, options=OnnxOptions(half=True))


class Branching(nn.Module):
    """Branches on a number, and does what no exporter knows."""

    def forward(self, images: Tensor) -> Tensor:
        y = torch.linalg.lu_factor(images)[0]
        return y if y.sum() > 0 else -y


class Detecting(Branching):
    """Says that what it gives are detections."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:  # type: ignore[override]
        y = super().forward(images)[0, 0]
        return [{"boxes": y[:, :4], "labels": y[:, 4].long(), "scores": y[:, 5]}]


def test_where_both_exporters_fail_both_are_named(export: Export) -> None:
    with pytest.raises(ExportError, match=r"torch.export: GuardOnData.*TorchScript exporter of torch.onnx fails"):
        export(Detecting(), make_inputs=inputs)


def test_branches_of_other_networks_are_not_frozen(export: Export) -> None:
    with pytest.raises(ExportError, match=r"torch.export: GuardOnData.*only the branch that one input takes"):
        export(Branching(), make_inputs=inputs)


def test_a_fault_of_another_kind_stays(export: Export) -> None:
    class Faulty(nn.Module):
        def forward(self, _images: Tensor) -> Tensor:
            msg = "no"
            raise ValueError(msg)

    with pytest.raises(ExportError, match="ValueError: no"):
        export(Faulty(), make_inputs=inputs)


def test_names() -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, *, right: Tensor) -> list[dict[str, Tensor]]:
            return [{"sum": left + right, "gap": left - right}]

    example = Example((torch.ones(2),), {"right": torch.ones(2)})
    assert input_names(Two(), example) == ["left", "right"]
    assert output_names(Two(), example) == ["sum", "gap"]
    assert output_names(nn.Identity(), Example((torch.ones(2),), {})) == ["output"]


def test_spread_scores_find_much_and_change_nothing() -> None:
    model = two_stages()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    args, kwargs = inputs(1)
    spread = spread_scores(model, before, Example(args, kwargs))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    changed = {name for name in before if not torch.equal(before[name], spread[name])}
    assert {name.rpartition(".")[0] for name in changed} == {"rpn.head.cls_logits", "roi_heads.box_predictor.cls_score"}
    model.load_state_dict(spread)
    assert len(model(*args)[0]["boxes"]) > 10
    other = nn.Linear(2, 2)
    assert spread_scores(other, other.state_dict(), Example((torch.ones(1, 2),), {})).keys() == {"weight", "bias"}


def test_distinct_tensors_differ() -> None:
    ones = {name: torch.ones(3) for name in "ab"} | {"zero": torch.zeros(3), "count": torch.tensor(1)}
    found = distinct(ones)
    assert not torch.equal(found["a"], found["b"])
    assert found["zero"].any()
    assert torch.equal(found["count"], ones["count"])
