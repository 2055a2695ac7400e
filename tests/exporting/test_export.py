"""The way from a model to a file, and that a wrong file is caught."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxscript import ir
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import (
    DeformableConv2d,
    SPDAvgPool,
    SPDCondConv,
    SPDConv,
    SPDMaxPool,
    SPDPerChannels,
    SPDStdConv,
    SPDStdPointwiseConv,
)
from spdify.errors import ExportError, UsageError
from spdify.exporting import OnnxOptions, export, files
from tests.exporting.networks import Residual, check_named, images, randomised
from tests.versions import needs_newest_operators

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.onnx import ONNXProgram

    from spdify.records import OnnxRecord

    Export = Callable[..., OnnxRecord]


def corrupt(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], Any]) -> None:
    """Make the optimiser get one initializer wrong, in the real program and in the perturbed copy alike."""
    optimise = export.optimise

    def wrong(program: ONNXProgram) -> None:
        value = program.model.graph.initializers[name]
        value.const_value = ir.tensor(np.ascontiguousarray(change(value.const_value.numpy())), name=name)
        optimise(program)

    monkeypatch.setattr(export, "optimise", wrong)


def test_a_right_file_has_the_final_name_and_takes_any_batch(export: Export, tmp_path: Path) -> None:
    model = Residual()
    record = export(model, perturbed=randomised(model))
    assert {c.name: c.outcome for c in record.checks} == {
        "dynamic batch": "passed",
        "onnx checker": "passed",
        "onnx batch 1": "passed",
        "onnx batch 3": "passed",
        "onnx perturbed weights": "passed",
    }
    assert (record.file, record.opset, record.dynamic_batch, record.note) == ("model.onnx", 20, True, "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 3, 9, 7]
    assert session.get_outputs()[0].shape == ["batch", 5]
    (x,), _ = images(5)
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], model(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w * np.float32(1.001),
        lambda w: w[..., ::-1],
        lambda w: w[[1, 0, 2, 3]],
        lambda w: w * np.float32("nan"),
    ],
    ids=["scaled by 1.001", "taps reversed", "two channels swapped", "NaN"],
)
def test_a_wrong_weight_in_the_file_is_caught(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    corrupt(monkeypatch, "stem.weight", change)
    record = export(Residual())
    for name in ("onnx batch 1", "onnx batch 3"):
        check = check_named(record, name)
        assert check.outcome == "failed"
        assert check.tolerance == 1e-4
        assert check.value is None or check.value > 1e-4
    assert record.file == "model.unverified.onnx"
    assert [path.name for path in tmp_path.iterdir()] == ["model.unverified.onnx"]


def test_perturbed_weights_show_what_a_zero_gain_hides(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupt(monkeypatch, "branch.weight", lambda w: w[..., ::-1])
    model = Residual()
    blind = export(model)
    assert blind.file == "model.onnx"
    record = export(model, perturbed=randomised(model))
    assert check_named(record, "onnx batch 3").outcome == "passed"
    assert check_named(record, "onnx perturbed weights").outcome == "failed"
    assert record.file == "model.unverified.onnx"


class Wavy(nn.Module):
    """Steep: what is summed in another order comes out a thousand times further apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(400 * self.conv(x))


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "passed"), (1.001, "failed")])
def test_what_float32_alone_moves_is_rounding_and_no_more(
    factor: float, outcome: str, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Wavy()
    corrupt(monkeypatch, "conv.weight", lambda w: w * np.float32(factor))
    weights = {name: 0.1 * torch.randn_like(t) for name, t in model.state_dict().items()}
    check = check_named(export(model, perturbed=weights), "onnx perturbed weights")
    assert check.outcome == outcome
    if outcome == "passed":
        assert 1e-4 < check.value < check.tolerance < 1e-2
        assert check.detail.startswith("float32 alone moves PyTorch's own output by ")


def test_a_stale_file_does_not_survive(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(Residual())
    corrupt(monkeypatch, "stem.weight", lambda w: w * 2)
    export(Residual())
    assert [path.name for path in tmp_path.iterdir()] == ["model.unverified.onnx"]


class ZeroHead(nn.Module):
    """A classifier that starts at zero, with or without a bias."""

    def __init__(self, *, bias: float) -> None:
        super().__init__()
        self.head = nn.Linear(63, 4)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(bias * torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean(1).flatten(1))


def test_a_constant_output_proves_nothing(export: Export) -> None:
    record = export(ZeroHead(bias=0.0))
    assert {check_named(record, f"onnx batch {n}").outcome for n in (1, 3)} == {"not run"}
    assert record.file == "model.unverified.onnx"


def test_perturbed_weights_make_up_for_a_constant_output(export: Export) -> None:
    model = ZeroHead(bias=1.0)
    record = export(model, perturbed=randomised(model))
    assert check_named(record, "onnx batch 3").outcome == "not run"
    assert check_named(record, "onnx perturbed weights").outcome == "passed"
    assert record.file == "model.onnx"


def test_outputs_that_are_not_finite_fail(export: Export) -> None:
    model = Residual()
    nn.init.constant_(model.head.weight, float("inf"))
    record = export(model)
    assert check_named(record, "onnx batch 3").outcome == "failed"
    assert "NaN or infinite" in check_named(record, "onnx batch 3").detail
    assert record.file == "model.unverified.onnx"


class Several(nn.Module):
    """Nested outputs, one of them an input, one given twice, one none; inputs by place and by name."""

    def forward(self, x: Tensor, *, scale: Tensor, table: Tensor) -> dict[str, Any]:
        y = x * scale[:, :, None, None] + table
        return {"late": (y, [y.sum(1), None]), "early": x, "again": y}


def test_nested_inputs_and_outputs_are_compared_one_by_one(export: Export) -> None:
    def make(batch: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        kwargs = {"table": torch.randn(3, 9, 7), "scale": torch.randn(batch, 3)}
        return images(batch)[0], kwargs

    record = export(Several(), make_inputs=make)
    assert record.file == "model.onnx"
    assert record.dynamic_batch


class Phases(nn.Module):
    """Space-to-depth on a padded map, a grouped convolution, a slope per channel: what converted models are made of."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv = nn.Conv2d(12, 3, 2, groups=3)
        self.slopes = nn.PReLU(num_parameters=3)

    def forward(self, x: Tensor) -> Tensor:
        odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        blocks = F.pixel_unshuffle(F.pad(x, odd, mode=self.mode), 2)
        return self.slopes(self.conv(F.pad(blocks, (1, 0, 1, 0))))


class Phases3d(nn.Module):
    """The same for volumes, by reshape and permute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(24, 3, 2, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        n, c, *sizes = F.pad(x, [part for size in reversed(x.shape[2:]) for part in (0, size % 2)]).shape
        x = F.pad(x, [part for size in reversed(x.shape[2:]) for part in (0, size % 2)])
        d, h, w = (size // 2 for size in sizes)
        blocks = x.reshape(n, c, d, 2, h, 2, w, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return self.conv(F.pad(blocks.reshape(n, 8 * c, d, h, w), (1, 0, 1, 0, 1, 0)))


@pytest.mark.parametrize(("model", "shape"), [
    (Phases("constant"), (3, 9, 7)),
    (Phases("replicate"), (3, 9, 7)),
    (Phases3d(), (3, 5, 4, 7)),
], ids=["zeros", "replicate", "volumes"])  # fmt: skip
def test_blocks_of_converted_models_keep_the_batch_open(
    export: Export, model: nn.Module, shape: tuple[int, ...]
) -> None:
    record = export(model, make_inputs=lambda batch: ((torch.randn(batch, *shape),), {}), perturbed=randomised(model))
    assert record.dynamic_batch
    assert {check.outcome for check in record.checks} == {"passed"}


BLOCKS: dict[str, nn.Module] = {
    "convolution, same": SPDConv(3, 6, 2, 2, [(0, 2)] * 2, groups=3, margin=(3, 3), padding_mode="same"),
    "average, same": SPDAvgPool(3, 3, 2, same=True),
    "maximum, same": SPDMaxPool(3, 3, 2, same=True),
    "maximum, dilated": SPDMaxPool(3, 3, 2, 1, 2),
    "standardised": SPDStdConv(3, 6, 3, 2, 1, gain_scale=0.3),
    "standardised, dilated, same": SPDStdConv(3, 6, 3, 2, dilation=2, same=True),
    "standardised, pointwise": SPDStdPointwiseConv(3, 6, gain_scale=0.3),
    "per channels": SPDPerChannels({3: SPDMaxPool(3, 2), 5: SPDAvgPool(5, 2)}),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_of_adapted_classes_keep_the_batch_open(export: Export, block: str) -> None:
    model = nn.Sequential(BLOCKS[block])
    record = export(model, perturbed=randomised(model))
    assert record.dynamic_batch
    assert {check.outcome for check in record.checks} == {"passed"}


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.routing, self.conv = nn.Linear(3, 4), SPDCondConv(3, 4, 2, 2, num_experts=4, extent=(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.routing(x.mean((2, 3))).sigmoid())


def test_weights_per_sample_are_exported_at_one_batch(export: Export) -> None:
    record = export(Conditional(), perturbed=randomised(Conditional()))
    assert not record.dynamic_batch
    assert "failed" not in {check.outcome for check in record.checks}
    assert check_named(record, "onnx batch 1").outcome == "passed"


@needs_newest_operators
@pytest.mark.parametrize("opset", [18, 25])
def test_the_ends_of_the_range_of_opsets_can_be_written(export: Export, tmp_path: Path, opset: int) -> None:
    record = export(Phases("constant"), options=OnnxOptions(opset=opset))
    assert (record.file, record.opset) == ("model.onnx", opset)
    assert onnx.load(str(tmp_path / "model.onnx")).opset_import[0].version == opset


@needs_newest_operators
def test_an_operator_that_an_opset_lacks_is_named(export: Export) -> None:
    model = nn.Sequential(DeformableConv2d(3, 4, (3, 3), offset_groups=3)).eval()
    with pytest.raises(ExportError, match="opset 18 has no DeformConv: ask for opset 19 or a newer one"):
        export(model, options=OnnxOptions(opset=18))
    for opset in (19, 25):
        record = export(model, options=OnnxOptions(opset=opset))
        assert (record.file, record.opset) == ("model.onnx", opset)


@pytest.mark.parametrize("options", [{"opset": 17}, {"opset": 26}, {"tolerance": 0.0}, {"tolerance": float("nan")}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot"):
        OnnxOptions(**options)


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x.nonzero().float()


class Untranslatable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


@pytest.mark.parametrize("model", [Untraceable(), Untranslatable()], ids=lambda model: type(model).__name__)
def test_a_model_that_does_not_export_raises_in_two_lines(export: Export, tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ExportError, match=f"cannot export {type(model).__name__} to ONNX: ") as caught:
        export(model)
    assert len(str(caught.value).splitlines()) == 2
    assert "--no-onnx" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_model_in_another_condition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="expected eval mode"):
        export.export_onnx(Residual().train(), tmp_path, make_inputs=images)
    with pytest.raises(ExportError, match="float64"):
        export.export_onnx(Residual().eval().double(), tmp_path, make_inputs=images)


def test_nothing_is_said(export: Export, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    def make(batch: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return images(batch)[0], {"scale": torch.randn(batch, 3), "table": torch.randn(3, 9, 7)}

    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(Several(), make_inputs=make)
        with pytest.raises(ExportError):
            export(Untranslatable())
    assert capfd.readouterr() == ("", "")
    # torch.__trace hands (empty) records to handlers whatever the level; only pytest has one on it.
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert logging.root.manager.disable == disabled


def test_the_file_names_no_path_of_this_machine(export: Export, tmp_path: Path) -> None:
    export(Residual())
    assert b".py" not in (tmp_path / "model.onnx").read_bytes()


def test_large_weights_go_to_a_file_beside_it(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "EXTERNAL_DATA_BYTES", 100)
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(280, 40))
    record = export(wide, perturbed=randomised(wide))
    assert {check.outcome for check in record.checks} == {"passed"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    (x,), _ = images(2)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, wide(x).detach(), rtol=1e-5, atol=1e-6)


def test_large_weights_of_an_unverified_file_keep_their_name(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "EXTERNAL_DATA_BYTES", 100)
    corrupt(monkeypatch, "2.weight", lambda w: w * 2)
    export(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(280, 40)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.unverified.onnx", "model.unverified.onnx.data"]
