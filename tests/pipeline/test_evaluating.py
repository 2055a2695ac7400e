from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from torch import nn

from spdify.datasets import DataOptions, DataSet, Pixels
from spdify.errors import DataError, RefusedError, SourceError, UsageError
from spdify.exporting import described
from spdify.pipeline.evaluating import Normalisation, evaluate, images_at_a_time
from spdify.records import Machine, MeasuredModel

if TYPE_CHECKING:
    from pathlib import Path

CPU = Machine(device="cpu")


class Brightest(nn.Module):
    """Says which of three channels is the most intense; what it says depends on the normalisation."""

    num_classes = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def data(**changes: object) -> DataSet:
    labels = torch.arange(30) % 3
    images = torch.full((30, 3, 8, 8), 50, dtype=torch.uint8)
    images[torch.arange(30), labels] = 200
    images[0, 0], images[0, 1] = 50, 200  # one of the first class that looks like the second
    pixels = Pixels(images, labels)
    return DataSet(
        **{"name": "made", "classes": ("r", "g", "b"), "train": pixels, "validation": None, "test": pixels, **changes}
    )  # type: ignore[arg-type]


def measure(model: object = None, dataset: DataSet | None = None, **options: object) -> MeasuredModel:
    options = {"build": {"input_size": (3, 8, 8)}, "machine": CPU, **options}
    return evaluate(model or Brightest(), data=dataset or data(), **options)  # type: ignore[arg-type]


def test_figures_and_confusion() -> None:
    found = measure(batch_size=8)
    assert found.evaluation.images == 30
    assert found.evaluation.top1 == pytest.approx(29 / 30)
    assert found.confusion == ((9, 1, 0), (0, 10, 0), (0, 0, 10))
    assert found.preprocessing_from == "mean and deviation of the training images"
    assert found.images_per_second is not None
    assert measure().images_per_second is None  # one batch only warms up


def test_what_is_given_wins() -> None:
    blind = measure(normalisation=Normalisation(mean=(1.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    assert blind.preprocessing_from == "as given"
    assert blind.preprocessing.mean == (1.0, 0.0, 0.0)
    assert blind.evaluation.top1 == pytest.approx(20 / 30)  # red is never the brightest
    with pytest.raises(UsageError, match="3 channels by 2 means"):
        measure(normalisation=Normalisation(mean=(1.0, 0.0)))
    with pytest.raises(UsageError, match="cannot normalise"):
        measure(normalisation=Normalisation(std=(0.0, 1.0, 1.0)))


def test_the_registry_says_how() -> None:
    found = evaluate("test_resnet", data="digits", machine=CPU, build={"num_classes": 10, "input_size": (3, 32, 32)})
    assert found.preprocessing_from == "as timm says"
    assert found.preprocessing.mean == pytest.approx((0.5, 0.5, 0.5))
    assert found.preprocessing.input_size == (3, 32, 32)


def test_splits() -> None:
    dataset = data(test=None)
    assert measure(dataset=dataset).split == "train"
    with pytest.raises(UsageError, match="test images of made: there are none") as caught:
        measure(dataset=dataset, split="test")
    assert caught.value.hint == "Expected one of train."


def test_classes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="it has 3 outputs, the data 2 classes") as caught:
        measure(dataset=data(classes=("r", "g")))
    assert "finetune" in caught.value.hint


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential(nn.Conv2d(3, 4, 1))])
def test_what_is_no_classifier(model: nn.Module) -> None:
    with pytest.raises(RefusedError, match=r"expected outputs \(N, classes\)"):
        measure(model)


def exported(folder: Path, *, batch: str | int = "n", metadata: dict[str, str] | None = None) -> Path:
    """Write the network as ONNX by hand."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)], "g",
        [value("x", 1, [batch, 3, 8, 8])], [value("y", 1, [batch, 3])],
        [onnx.helper.make_tensor("axes", 7, [2], [2, 3])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, metadata or {})
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_onnx_of_anybody(tmp_path: Path) -> None:
    file = exported(tmp_path)
    found = evaluate(file, data=data(), machine=CPU)
    assert found.confusion == measure().confusion
    assert found.preprocessing_from == "mean and deviation of the training images"
    fixed = evaluate(exported(tmp_path, batch=4), data=data(), machine=CPU)  # 30 images: the last batch is filled up
    assert fixed.confusion == found.confusion
    with pytest.raises(UsageError, match=r"cannot measure .* on inputs of"):
        evaluate(file, data=data(), machine=CPU, normalisation=Normalisation(size=(3, 16, 16)))


def test_onnx_with_classes_of_its_own(tmp_path: Path) -> None:
    how = measure().preprocessing
    texts = {"spdify.preprocessing": how.model_dump_json(), "spdify.classes": '["r", "x", "b"]'}
    with pytest.raises(DataError, match="its class 1 is 'x', that of the data 'g'"):
        evaluate(exported(tmp_path, metadata=texts), data=data(), machine=CPU)
    assert described({"spdify.preprocessing": "{}"}) == (None, ())
    assert described({"spdify.classes": "not json"}) == (None, ())


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        evaluate(tmp_path / "model.onnx", data="digits", machine=CPU)
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match="ONNX Runtime does not load it"):
        evaluate(tmp_path / "model.onnx", data="digits", machine=CPU)


def test_skipped_images_are_told(tmp_path: Path) -> None:
    dataset = data(skipped=(tmp_path / "bad.png",))
    assert measure(dataset=dataset).notes == ("1 images could not be read and were left out",)
    assert measure().notes == ()


def test_grey_networks_get_grey_images() -> None:
    class Grey(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == 1
            return x.flatten(1)[:, :10]

    found = evaluate(
        Grey(), data="digits", machine=CPU, build={"input_size": (1, 8, 8)}, data_options=DataOptions(channels=3)
    )
    assert found.preprocessing.mean == (0.3058,)


def _onnx(folder: Path, shape: list[Any], *, kind: int = 1, reshaped: list[int] | None = None) -> Path:
    """An ONNX file that reshapes its input."""
    value = onnx.helper.make_tensor_value_info
    sizes = reshaped or [0, -1]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["x", "sizes"], ["y"])], "net",
        [value("x", kind, shape)], [value("y", kind, None)],
        [onnx.helper.make_tensor("sizes", 7, [len(sizes)], sizes)],
    )  # fmt: skip
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10),
        folder / "a.onnx",
    )
    return folder / "a.onnx"


@pytest.mark.parametrize(
    ("shape", "more", "words"),
    [
        (["n", 3, 2**20, 2**20], {}, "expected 1 to"),
        (["n", 3, 2**16, 2**16], {}, "elements in all"),
        ([2**40, 3, 8, 8], {}, "batches of"),
        (["n", 3, 8, 8], {"kind": 7}, "does not run it"),
        (["n", 3, 8, 8], {"reshaped": [7, 11]}, "does not run it"),
        (["n", 3, 8, 8], {"reshaped": [-1]}, "an output for each image"),
    ],
)
def test_onnx_made_to_do_harm(tmp_path: Path, shape: list[Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises((SourceError, UsageError), match=words):
        evaluate(_onnx(tmp_path, shape, **more), data=data(), machine=CPU)


def test_onnx_that_says_a_size_of_other_axes(tmp_path: Path) -> None:
    how = measure().preprocessing.model_copy(update={"input_size": (3, 8)})
    with pytest.raises(UsageError, match="on inputs of"):
        evaluate(exported(tmp_path, metadata={"spdify.preprocessing": how.model_dump_json()}), data=data(), machine=CPU)


def test_onnx_with_names_that_are_no_text(tmp_path: Path) -> None:
    file = exported(tmp_path, metadata={"spdify.classes": "abcdefgh"})
    file.write_bytes(file.read_bytes().replace(b"abcdefgh", b"\xff" * 8))
    with pytest.raises(SourceError, match="UnicodeDecodeError"):
        evaluate(file, data=data(), machine=CPU)


def test_large_images_are_measured_in_fewer_at_a_time() -> None:
    assert [images_at_a_time((3, n, n)) for n in (224, 2**11, 2**14)] == [256, 21, 1]
