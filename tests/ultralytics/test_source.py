"""Ultralytics' networks as a source: by name, and from a file that somebody vouches for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from spdify.errors import SourceError, UsageError
from spdify.records import Source
from spdify.sources import BuildOptions, build
from spdify.sources.structure import build_structure
from spdify.sources.ultralytics_package import ultralytics

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A file as its trainer writes it, with weights and names of its own."""
    model: Any = build("ultralytics:yolov5n", BuildOptions(num_classes=3, seed=5)).model
    model.names = {0: "cat", 1: "dog", 2: "bird"}
    file = tmp_path / "best.pt"
    torch.save({"model": model, "train_args": {}}, file)
    return file


@pytest.mark.parametrize(
    ("name", "params", "task"),
    [
        ("yolov5n", 2_654_816, "DetectionModel"),
        ("yolov8n", 3_157_200, "DetectionModel"),
        ("yolo11n", 2_624_080, "DetectionModel"),
        ("yolov8n-seg", 3_409_968, "SegmentationModel"),
        ("yolo11n-cls", 2_812_104, "ClassificationModel"),
        ("yolov8n-p2", 3_354_144, "DetectionModel"),
    ],
)
def test_configurations_have_the_package_s_own_counts(name: str, params: int, task: str) -> None:
    own: Any = ultralytics().YOLO(f"{name}.yaml").model
    loaded = build(f"ultralytics:{name}")
    assert type(loaded.model).__name__ == type(own).__name__ == task
    assert sum(p.numel() for p in loaded.model.parameters()) == sum(p.numel() for p in own.parameters()) == params
    assert loaded.source.is_registry


def test_classes_and_channels_are_the_constructor_s() -> None:
    loaded = build("ultralytics:yolov5n", BuildOptions(num_classes=7, in_chans=1, input_size=(1, 64, 64)))
    model: Any = loaded.model
    assert model.model[-1].nc == loaded.source.num_classes == 7
    assert model.model[0].conv.in_channels == 1
    again: Any = build_structure(loaded.source, device="meta")
    assert again.model[-1].nc == 7
    assert again.model[0].conv.in_channels == 1


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = (
        build("ultralytics:yolov5n", BuildOptions(seed=seed)).model.state_dict() for seed in (1, 1, 2)
    )
    name = "model.1.conv.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ultralytics:yolov5", "its size is open"),
        ("ultralytics:yolov5q", "Cannot find"),
        ("ultralytics:yolov7n", "Cannot find"),
        ("ultralytics:../../yolov5n", "Cannot find"),
        ("ultralytics:rtdetr-l", "no plain YOLO network"),
        ("ultralytics:yolov8n-rtdetr", "no plain YOLO network"),
        ("ultralytics:yolo11-cls-resnet18", "with weights to fetch"),
    ],
)
def test_names_that_there_are_not(spec: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        build(spec)
    if spec.startswith("ultralytics:yolov5"):
        assert "yolov5n" in caught.value.hint


def test_weights_are_not_fetched_and_other_arguments_not_taken() -> None:
    with pytest.raises(UsageError, match="run code when they are read"):
        build("ultralytics:yolov5n", BuildOptions(pretrained=True))
    with pytest.raises(UsageError, match="with depth_multiple"):
        build("ultralytics:yolov5n", BuildOptions(model_kwargs={"depth_multiple": 2}))


def test_a_file_is_read_only_where_somebody_vouches_for_it(trained: Path) -> None:
    with pytest.raises(UsageError, match="runs code from it") as caught:
        build(str(trained))
    assert "--trust-checkpoint" in caught.value.hint
    loaded = build(f"ultralytics:{trained}", BuildOptions(trust_checkpoint=True))
    original = build("ultralytics:yolov5n", BuildOptions(num_classes=3, seed=5)).model.state_dict()
    assert all(torch.equal(value, original[name]) for name, value in loaded.model.state_dict().items())
    assert (loaded.source.name, loaded.source.num_classes, loaded.source.weights) == ("best", 3, "best.pt")


def test_a_record_builds_it_again_without_the_file(trained: Path) -> None:
    loaded = build(str(trained), BuildOptions(trust_checkpoint=True))
    trained.unlink()
    record = Source.model_validate_json(loaded.source.model_dump_json())
    again: Any = build_structure(record, device="meta")
    assert again.names == {0: "cat", 1: "dog", 2: "bird"}
    again.load_state_dict(loaded.model.state_dict())


def test_the_flag_is_for_files_of_the_package_only(trained: Path) -> None:
    with pytest.raises(UsageError, match="nothing that runs code is read"):
        build("resnet18", BuildOptions(trust_checkpoint=True))
    with pytest.raises(UsageError, match="the file has a network"):
        build(str(trained), BuildOptions(trust_checkpoint=True, num_classes=9))


def test_a_file_with_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "linear.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, file)
    with pytest.raises(SourceError, match="expected a network of Ultralytics, got Linear"):
        build(str(file), BuildOptions(trust_checkpoint=True))
    file.write_bytes(b"no pickle")
    with pytest.raises(SourceError, match="Cannot read"):
        build(str(file), BuildOptions(trust_checkpoint=True))
    with pytest.raises(SourceError, match="Cannot find the file"):
        build(str(tmp_path / "none.pt"), BuildOptions(trust_checkpoint=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "__import__('os').system('true')"}, "as code"),
        ({"activation": "nn.ReLU() or print(1)"}, "as code"),
        ({"backbone": [[-1, 1, "TorchVision", [512, "resnet18", "DEFAULT"]]]}, "not known"),
        (
            {"head": [[-1, 1, "parse_model", [{"activation": "print(1)", "backbone": [], "head": []}, [3]]]]},
            "not known",
        ),
        ({"head": [[-1, 1, "torch_safe_load", ["evil.pt"]]]}, "not known"),
        ({"head": [[-1, 1, "DetectionModel", [3]]]}, "not known"),
        ({"head": [[-1, 1, "Conv", [{"a": 1}]]]}, "not known"),
        ({"head": [[-1, 10**8, "Conv", [8]]]}, "not known"),
        ({"head": [[-1, 1, ["Conv"], [8]]]}, "not known"),
        ({"head": [[-1, 1, "Conv", [10**9]]]}, "not known"),
        ({"head": [[-1, 1, "Conv", ["9" * 9]]]}, "not known"),
        ({"backbone": [[-1, 1, "Conv", [8]]] * 501}, "layers"),
        ({"nc": 10**9}, "nc of its configuration"),
        ({"width_multiple": 1e5}, "width_multiple"),
        ({"depth_multiple": 1e6}, "depth_multiple"),
        ({"scales": {"n": [0.3, 1e5, 1024]}}, "scales"),
        ({"backbone": None}, "holds no configuration"),
    ],
)
def test_a_record_cannot_have_the_package_run_or_fetch_something(change: dict[str, object], message: str) -> None:
    config = {**build("ultralytics:yolov5n").model.yaml, **change}  # type: ignore[dict-item]
    source = Source(spec="ultralytics:x.pt", kind="ultralytics", name="x", kwargs={"config": json.dumps(config)})
    with pytest.raises(SourceError, match=message):
        build_structure(source, device="meta")


@pytest.mark.parametrize(
    "text", ["torch.nn.LeakyReLU(inplace=True)", "nn.LeakyReLU(0.1)", "nn.LeakyReLU(0.1, inplace=True)"]
)
def test_plain_activations_are_taken(text: str) -> None:
    config = {**build("ultralytics:yolov5n").model.yaml, "activation": text}  # type: ignore[dict-item]
    source = Source(spec="ultralytics:x.pt", kind="ultralytics", name="x", kwargs={"config": json.dumps(config)})
    model: Any = build_structure(source, device="meta")
    assert isinstance(model.model[1].act, torch.nn.LeakyReLU)


def test_a_network_that_is_not_its_configuration_s_is_refused(tmp_path: Path) -> None:
    model: Any = build("ultralytics:yolov5n").model
    model.model[1].act = torch.nn.ReLU()
    file = tmp_path / "changed.pt"
    torch.save({"model": model}, file)
    with pytest.raises(SourceError, match="computes something else"):
        build(str(file), BuildOptions(trust_checkpoint=True))
    model.model[1] = torch.nn.Identity()
    torch.save({"model": model}, file)
    with pytest.raises(SourceError, match="not the one of its configuration"):
        build(str(file), BuildOptions(trust_checkpoint=True))


@pytest.mark.parametrize(
    "names", [["cat", "dog", "bird"], {"2": "bird", "0": "cat", "1": "dog"}, {0: "cat", 1: "dog", 2: "bird"}]
)
def test_names_of_classes_keep_their_numbers(tmp_path: Path, names: object) -> None:
    model: Any = build("ultralytics:yolov5n", BuildOptions(num_classes=3)).model
    model.names = names
    torch.save({"model": model}, tmp_path / "named.pt")
    loaded: Any = build(str(tmp_path / "named.pt"), BuildOptions(trust_checkpoint=True)).model
    assert loaded.names == {0: "cat", 1: "dog", 2: "bird"}


@pytest.mark.parametrize("names", [None, ["cat"], {1: "cat", 5: "dog", 7: "bird"}, {"a": "b", 0: "c", 1: "d"}])
def test_names_that_are_none_are_refused(tmp_path: Path, names: object) -> None:
    model: Any = build("ultralytics:yolov5n", BuildOptions(num_classes=3)).model
    model.names = names
    torch.save({"model": model}, tmp_path / "named.pt")
    with pytest.raises(SourceError, match="expected names of its 3 classes"):
        build(str(tmp_path / "named.pt"), BuildOptions(trust_checkpoint=True))


@pytest.mark.parametrize("classes", [0, 10**9])
def test_numbers_of_classes_out_of_bounds(classes: int) -> None:
    with pytest.raises(SourceError, match="expected 1 to"):
        build("ultralytics:yolov5n", BuildOptions(num_classes=classes))
