from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from safetensors.torch import save_file

from spdify.errors import SourceError, UsageError
from spdify.sources import BuildOptions, build, build_structure, example_inputs
from spdify.sources.comparing import first_difference

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TINY = "test_resnet"


def run(spec: str, **wishes: object) -> tuple[int, ...]:
    """Build, run the example at batch 2, and make sure that the record builds the same structure."""
    loaded = build(spec, BuildOptions(**wishes))
    args, kwargs = example_inputs(loaded.inputs, batch=2, seed=0)
    assert first_difference(loaded.model, build_structure(loaded.source, device="meta")) is None
    return tuple(loaded.model(*args, **kwargs).shape)


def test_a_model_comes_in_its_own_size_with_its_preprocessing() -> None:
    loaded = build(f"timm:{TINY}")

    assert not loaded.model.training
    assert next(loaded.model.parameters()).device.type == "cpu"
    assert loaded.inputs.args[0].shape == (1, 3, 160, 160)
    source = loaded.source
    assert (source.spec, source.kind, source.name) == (f"timm:{TINY}", "timm", TINY)
    assert (source.num_classes, source.kwargs, source.weights) == (1000, {}, "random, seed 0")
    assert source.preprocessing is not None
    assert source.preprocessing.input_size == (3, 160, 160)
    assert (source.preprocessing.mean, source.preprocessing.crop_pct) == ((0.5, 0.5, 0.5), 0.95)


def test_a_tag_stays_in_the_spec() -> None:
    assert build(f"{TINY}.r160_in1k").source.spec == f"timm:{TINY}.r160_in1k"


def test_classes_and_channels_are_built_and_recorded() -> None:
    assert run(TINY, num_classes=7, in_chans=1) == (2, 7)
    source = build(TINY, BuildOptions(num_classes=7, in_chans=1)).source
    assert source.kwargs == {"num_classes": 7, "in_chans": 1}
    assert source.num_classes == 7
    assert source.preprocessing is not None
    assert source.preprocessing.mean == (0.5,)


def test_channels_follow_the_input_size() -> None:
    loaded = build(TINY, BuildOptions(input_size=(5, 64, 96)))

    assert loaded.inputs.args[0].shape == (1, 5, 64, 96)
    assert loaded.source.kwargs == {"in_chans": 5}


@pytest.mark.parametrize(
    ("wishes", "img_size", "shape"),
    [
        ({"input_size": (3, 96, 128)}, [96, 128], (1, 3, 96, 128)),
        ({"input_size": (3, 160, 160)}, None, (1, 3, 160, 160)),
        ({"model_kwargs": {"img_size": [64, 96]}}, [64, 96], (1, 3, 64, 96)),
        ({"model_kwargs": {"img_size": 64}}, 64, (1, 3, 64, 64)),
        ({"model_kwargs": {"dynamic_img_size": True}, "input_size": (3, 96, 96)}, None, (1, 3, 96, 96)),
    ],
)
def test_a_model_of_fixed_size_is_built_for_the_size(
    wishes: dict[str, object], img_size: object, shape: tuple[int, ...]
) -> None:
    loaded = build("test_vit", BuildOptions(**wishes))

    assert loaded.source.kwargs.get("img_size") == img_size
    assert loaded.inputs.args[0].shape == shape
    assert run("test_vit", **wishes) == (2, 1000)


@pytest.mark.parametrize(
    "wishes",
    [
        {"input_size": (3, 96, 96), "model_kwargs": {"img_size": 64}},
        {"input_size": (3, 96, 96), "model_kwargs": {"in_chans": 1}},
        {"input_size": (3, 8, 96, 96)},
        {"input_size": (3, 96, 96), "model_kwargs": {"img_size": "large"}},
        {"model_kwargs": {"checkpoint_path": "x"}},
    ],
)
def test_wishes_that_contradict_are_refused(wishes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        build("test_vit", BuildOptions(**wishes))


def test_an_argument_that_no_constructor_takes_is_named() -> None:
    with pytest.raises(SourceError, match=r"Cannot build timm:test_resnet with nonsense=1: TypeError.*nonsense"):
        build(TINY, BuildOptions(model_kwargs={"nonsense": 1}))


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("resnet55", "resnet50"),
        ("googlenet", "torchvision has it: did you mean torchvision:googlenet?"),
        ("squeezenet1_2", "torchvision:squeezenet1_1"),
        ("resnet50.a1_in2k", "resnet50.a1_in1k"),
        ("test_resnet.zzzzzzzz", "test_resnet.r160_in1k"),
    ],
)
def test_unknown_names_bring_near_ones(spec: str, hint: str) -> None:
    with pytest.raises(SourceError, match="Cannot find") as caught:
        build(spec)

    assert hint in caught.value.hint


def test_a_name_like_no_other_brings_no_hint() -> None:
    with pytest.raises(SourceError, match="Cannot find the model 'zzzzqqqq' in timm") as caught:
        build("zzzzqqqq")

    assert caught.value.hint == ""


@pytest.mark.usefixtures("offline")
def test_pretrained_weights_offline_fail_quickly_and_say_how_to_go_on() -> None:
    start = time.monotonic()

    with pytest.raises(SourceError, match=r"for test_resnet \(timm/test_resnet\.r160_in1k\).*not answer") as caught:
        build(TINY, BuildOptions(pretrained=True))

    assert "--checkpoint FILE" in caught.value.hint
    assert "leave out --pretrained" in caught.value.hint
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("offline")
def test_a_repository_offline_fails_quickly() -> None:
    with pytest.raises(SourceError, match=r"config\.json of hf-hub:nobody/nothing.*not answer") as caught:
        build("hf-hub:nobody/nothing")

    assert "local-dir:FOLDER" in caught.value.hint


def cached(cache: Path, repository: str) -> Path:
    """Make a folder that huggingface_hub takes for a downloaded repository."""
    folder = cache / ("models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40, encoding="ascii")
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


def test_cached_weights_serve_offline(offline: Path, tiny_weights: dict[str, Tensor]) -> None:
    save_file(tiny_weights, cached(offline, "timm/test_resnet.r160_in1k") / "model.safetensors")

    loaded = build(TINY, BuildOptions(pretrained=True, num_classes=5))

    assert loaded.source.weights == "pretrained, timm/test_resnet.r160_in1k"
    state = loaded.model.state_dict()
    assert torch.equal(state["layer1.0.conv1.weight"], tiny_weights["layer1.0.conv1.weight"])
    assert state["fc.weight"].shape[0] == 5


def test_a_cached_repository_serves_offline_and_is_built_again_without_it(offline: Path, model_folder: Path) -> None:
    snapshot = cached(offline, "me/net")
    for file in model_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())

    loaded = build("hf-hub:me/net", BuildOptions(pretrained=True))
    for file in snapshot.iterdir():
        file.unlink()

    assert loaded.source.kwargs["model_name"] == TINY
    assert first_difference(loaded.model, build_structure(loaded.source, device="cpu")) is None


def test_a_folder_is_a_source(model_folder: Path) -> None:
    random = build(f"local-dir:{model_folder}")
    trained = build(f"local-dir:{model_folder}", BuildOptions(pretrained=True))

    assert trained.inputs.args[0].shape == (1, 1, 96, 96)
    assert trained.source.kind == "local-dir"
    assert trained.source.name == "published"
    assert trained.source.num_classes == 7
    expected = timm.create_model(f"local-dir:{model_folder}", pretrained=True).state_dict()
    state = trained.model.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not torch.equal(random.model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_a_folders_model_is_built_again_where_the_folder_is_not(model_folder: Path) -> None:
    loaded = build(f"local-dir:{model_folder}", BuildOptions(num_classes=3))
    (model_folder / "config.json").unlink()

    again = build_structure(loaded.source, device="meta")

    assert first_difference(loaded.model, again) is None
    assert again.state_dict()["fc.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ("{}", "KeyError"),
        ("[]", "TypeError"),
        (json.dumps({"architecture": "test_resnett"}), "its architecture 'test_resnett' is not in timm"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path: Path, config: str | None, said: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")

    with pytest.raises(SourceError, match=said):
        build(f"local-dir:{tmp_path}")


def test_a_folder_without_weights_is_told(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()

    with pytest.raises(SourceError, match="Cannot build local-dir"):
        build(f"local-dir:{model_folder}", BuildOptions(pretrained=True))


def test_a_model_without_weights_is_told_apart_from_a_missing_network() -> None:
    names = set(timm.list_models()) - set(timm.list_pretrained()) - {n.split(".")[0] for n in timm.list_pretrained()}
    name = min(names)

    with pytest.raises(SourceError, match=rf"pretrained weights for {name}: timm \S+ has none"):
        build(name, BuildOptions(pretrained=True))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"architecture": "resnet18", "pretrained_cfg": 7}', "NaN", "[]", "{" * 2**21]
)
def test_a_folder_made_to_do_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SourceError, match="Cannot read the model folder"):
        build(f"local-dir:{tmp_path}")


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(SourceError, match="not a plain file"):
        build(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", [3, 10**9, 32]), ("input_size", [3, -1, 32]), ("input_size", "wide"), ("input_size", []),
        ("crop_pct", 2**31), ("crop_pct", "hf-hub:a/b"), ("mean", [0, 0, {"a": 1}]), ("std", 7), ("interpolation", [1]),
    ],
)  # fmt: skip
def test_preprocessing_made_to_do_harm(tmp_path: Path, field: str, value: object) -> None:
    known = {"input_size": [3, 64, 64], "mean": [0, 0, 0], "std": [1, 1, 1], "crop_pct": 1.0}
    content = {"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": known | {field: value}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"Cannot (use the preprocessing of|build) local-dir"):
        build(f"local-dir:{tmp_path}")
