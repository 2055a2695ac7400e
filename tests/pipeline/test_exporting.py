"""Networks in the form and the format that is deployed, compared with what they were."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from timm.layers import create_conv2d
from torch import nn

import spdify
from spdify.errors import BundleError, CheckFailedError, ExportError, UsageError
from spdify.exporting import native, torch_files
from spdify.pipeline import exporting
from spdify.pipeline.exporting import ExportSettings, export
from spdify.records import ExportRecord

if TYPE_CHECKING:
    from pathlib import Path

    from spdify.exporting.examples import Array

SIZE = (3, 32, 32)


class Net(nn.Module):
    """Every kind of site, and a head for any size; or for one."""

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.short = nn.Conv2d(8, 8, 1, 2)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(32 if fixed else 8, 5)
        self.fixed = fixed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.stem(x))
        x = self.mean(self.deep(x) + self.short(x))
        result: torch.Tensor = self.head(x.flatten(1) if self.fixed else x.mean((2, 3)))
        return result


def converted(*, fixed: bool = False, trained: bool = True) -> nn.Module:
    torch.manual_seed(0)
    net = Net(fixed=fixed)
    net.train()(torch.randn(16, *SIZE))
    model = spdify.convert(net.eval(), input_size=SIZE, proof="site").model
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def run(model: nn.Module, folder: Path, **settings: Any) -> ExportRecord:  # noqa: ANN401 - of ExportSettings
    return export(model, folder, settings=ExportSettings(**settings), input_size=SIZE)


def by_onnx(path: Path, x: torch.Tensor) -> Array:
    session = ort.InferenceSession(path)
    found: Array = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return found


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_trained_network_is_fused(tmp_path: Path) -> None:
    model = converted()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = run(model.train(), tmp_path / "out")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert (record.form, record.format, record.dtype, record.opset) == ("fused", "onnx", "float32", 20)
    assert record.files == ("model.onnx",)
    assert record.dynamic_batch
    assert record.dynamic_size
    assert {site.path for site in record.sites} == {"stem.0", "pool", "deep.0", "short", "mean"}
    assert all(site.form for site in record.sites)
    path = tmp_path / "out" / "model.onnx"
    (image,) = onnx.load(path).graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    strided = [
        {a.name: list(a.ints) for a in node.attribute if a.ints}
        for node in onnx.load(path).graph.node
        if node.op_type == "Conv"
    ]
    assert [c["pads"] for c in strided if c["kernel_shape"] == [8, 8]] == [[4, 4, 3, 3]]
    assert kinds(path).count("Pad") == 1  # the edge of the max pool
    assert not {"SpaceToDepth", "BatchNormalization", "MaxPool"} & set(kinds(path))
    x = torch.randn(2, 3, 45, 38)
    with torch.no_grad():
        np.testing.assert_allclose(by_onnx(path, x), model.eval()(x).numpy(), rtol=1e-4, atol=1e-5)
    saved = ExportRecord.model_validate_json((tmp_path / "out" / "export.json").read_text())
    assert saved == record


def test_what_nobody_trained_is_what_it_was(tmp_path: Path) -> None:
    run(converted(trained=False), tmp_path / "out")
    found = kinds(tmp_path / "out" / "model.onnx")
    assert found.count("MaxPool") == found.count("AveragePool") == 1
    assert found.count("Conv") == 3
    assert "Pad" not in found


def test_onnx_own_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = converted()
    record = run(model, tmp_path / "out", form="space-to-depth")
    assert kinds(tmp_path / "out" / "model.onnx").count("SpaceToDepth") == 1  # the stem: the others are depthwise
    assert "SpaceToDepth" in next(site.form for site in record.sites if site.path == "stem.0")
    assert not record.dynamic_size
    monkeypatch.setattr(
        native.op, "SpaceToDepth", lambda x, blocksize: native.op.Transpose(x, perm=[0, 1, 3, 2]) if blocksize else x
    )
    with pytest.raises(CheckFailedError, match="does not pass"):
        run(model, tmp_path / "wrong", form="space-to-depth")
    assert not (tmp_path / "wrong").exists()


SLOW_PAIRS = [("python", "spd"), ("pt2", "fused")]


@pytest.mark.parametrize(
    ("file_format", "form"),
    [("python", "fused"), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW_PAIRS)],
)
def test_formats_that_run_without_spdify(file_format: str, form: str, tmp_path: Path) -> None:
    model = converted().eval()
    record = run(model, tmp_path / "out", form=form, format=file_format)
    size = (45, 38) if form == "fused" else SIZE[1:]
    x = torch.randn(2, 3, *size)
    torch.save(x, tmp_path / "x.pt")
    read = (
        f"torch.export.load({str(tmp_path / 'out' / 'model.pt2')!r}).module()"
        if file_format == "pt2"
        else f"(sys.path.insert(0, {str(tmp_path / 'out')!r}), __import__('model').load())[1]"
    )
    code = (
        "import sys, torch\nsys.modules['spdify'] = sys.modules['timm'] = None\n"
        f"y = {read}(torch.load({str(tmp_path / 'x.pt')!r}))\ntorch.save(y, {str(tmp_path / 'y.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt"), model(x), rtol=1e-4, atol=1e-5)
    assert record.dynamic_size == (form == "fused")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*record.files, "export.json"])


@pytest.mark.slow
def test_half_precision_with_its_error(tmp_path: Path) -> None:
    record = run(converted(), tmp_path / "out", dtype="float16")
    (image,) = onnx.load(tmp_path / "out" / "model.onnx").graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    (batch,) = [check for check in record.checks if check.name == "onnx batch 3"]
    assert batch.value is not None
    assert 1e-5 < batch.value < 2e-2 == batch.tolerance


@pytest.mark.slow
def test_the_fastest_form_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"fused": (3.0, 3.0), "spd": (2.0, 2.5), "space-to-depth": (4.0, 4.0)}
    asked: list[list[str]] = []

    def stopwatch(calls: dict[str, Any], **_: object) -> dict[str, tuple[float, ...]]:
        for call in calls.values():
            call()
        asked.append(list(calls))
        return {name: seconds[name] for name in calls}

    monkeypatch.setattr(exporting, "paired_seconds", stopwatch)
    record = run(converted(), tmp_path / "out", form="auto", threads=1)
    assert record.form == "spd"
    assert asked == [["fused", "spd", "space-to-depth"]]
    assert [timing.milliseconds for timing in record.timings] == [3000, 2250, 4000]
    assert record.timings[1].ratio is not None
    assert record.timings[1].ratio.median == pytest.approx(0.75)
    assert record.threads == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "model.onnx"]


def test_a_size_that_the_network_fixes_is_said(tmp_path: Path) -> None:
    record = run(converted(fixed=True), tmp_path / "out")
    (size,) = [check for check in record.checks if check.name == "dynamic size"]
    assert size.outcome == "not run"
    assert "height and width are fixed" in size.detail
    assert not record.dynamic_size
    assert record.dynamic_batch


def test_an_open_size_that_was_asked_for_is_insisted_on(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot leave height and width of Net open"):
        run(converted(fixed=True), tmp_path / "out", dynamic_size=True, format="python")
    assert not (tmp_path / "out").exists()
    assert ExportSettings(form="auto", dynamic_size=True).candidates == ("fused",)


def test_no_compiled_code_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    run(Net().eval(), tmp_path / "out", form="spd", format="python")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "export.json",
        "model.py",
        "weights.safetensors",
    ]


def test_a_wrong_form_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting.fuse_blocks

    def wrong(model: nn.Module) -> Any:  # noqa: ANN401 - as the real one
        sites = real(model)
        with torch.no_grad():
            model.get_submodule("deep.0").weight[0, 0, 0, 0] += 1e-3  # type: ignore[operator, index]  # a tensor
        return sites

    monkeypatch.setattr(exporting, "fuse_blocks", wrong)
    with pytest.raises(CheckFailedError, match="form, trained weights"):
        run(converted(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "folded"}, "expected one of spd, fused, space-to-depth, auto"),
        ({"format": "tflite"}, "expected one of onnx, pt2, python"),
        ({"dtype": "int8"}, "expected one of float32, float16"),
        ({"form": "space-to-depth", "format": "pt2"}, "operator of ONNX"),
        ({"format": "python", "dtype": "float16"}, "only ONNX"),
        ({"form": "spd", "dynamic_size": True}, "its blocks divide them"),
        ({"opset": 3}, "opset 3"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as fault:
        run(converted(), tmp_path / "out", **settings)
    assert words in f"{fault.value.message} {fault.value.hint}"
    assert not (tmp_path / "out").exists()


def test_a_network_without_blocks_is_written_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no block that could take another form"):
        run(Net().eval(), tmp_path / "out")
    assert run(Net().eval(), tmp_path / "out", form="spd").files == ("model.onnx",)


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="spdify did not write it"):
        export(Net().eval(), tmp_path / "mine", settings=ExportSettings(form="spd"), overwrite=True, input_size=SIZE)
    run(Net().eval(), tmp_path / "out", form="spd")
    with pytest.raises(BundleError, match="not empty"):
        run(Net().eval(), tmp_path / "out", form="spd")
    export(Net().eval(), tmp_path / "out", settings=ExportSettings(form="spd"), overwrite=True, input_size=SIZE)


def test_a_trained_bundle_carries_its_preprocessing(tmp_path: Path) -> None:
    """What an earlier step knows of images is in the file, and in export.json."""
    from tests.pipeline.training_networks import tiny

    conversion = spdify.convert(tiny(), input_size=SIZE, proof="site")
    conversion.save(tmp_path / "bundle", onnx=False)
    known = json.loads((tmp_path / "bundle" / "spdify.json").read_text())
    assert not known["trainings"]
    code = f"{__file__.replace('test_exporting', 'training_networks')}:tiny"
    record = export(tmp_path / "bundle", tmp_path / "out", code=code)
    assert record.source == conversion.source
    assert record.preprocessing is None


class Odd(nn.Module):
    """Operators with arguments that their usual functions would not take, and inputs with names of the file's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, w: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.conv(w).mean((2, 3))
        masked = x.masked_fill(x < 0, float("-inf"))
        return {"softmax": torch.softmax(masked, -1, dtype=torch.float64), "mean": x.add_(1.0)}


def test_python_keeps_dtypes_names_and_nesting(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = spdify.convert(Odd().eval(), input_size=SIZE, proof="site").model
    run(model, tmp_path / "out", format="python")
    spec = importlib.util.spec_from_file_location("odd_network", tmp_path / "out" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = torch.randn(2, *SIZE)
    expected, found = model(x), module.load()(x)
    assert list(found) == ["softmax", "mean"]
    assert found["softmax"].dtype == torch.float64
    for name in expected:
        torch.testing.assert_close(found[name], expected[name].detach(), rtol=1e-4, atol=1e-5)


def test_a_dtype_that_is_lost_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch_files.python_code

    def wrong(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the real one
        text, tensors = real(*args, **kwargs)
        return text.replace("softmax.int(", "softmax.int(").replace(", torch.float64)", ", torch.float32)"), tensors

    monkeypatch.setattr(torch_files, "python_code", wrong)
    model = spdify.convert(Odd().eval(), input_size=SIZE, proof="site").model
    with pytest.raises(ExportError, match="other dtypes"):
        run(model, tmp_path / "out", format="python")


def test_layers_that_pad_by_size_keep_the_size(tmp_path: Path) -> None:
    model = nn.Sequential(create_conv2d(3, 4, 3, stride=2, padding="same"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    converted = spdify.convert(model.eval(), input_size=SIZE, proof="site").model
    record = run(converted, tmp_path / "out", format="python")
    assert not record.dynamic_size
    (check,) = [check for check in record.checks if check.name == "dynamic size"]
    assert "0 pads by the size of its input" in check.detail
