from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import nn

from spdify.errors import SourceError, UsageError
from spdify.sources import BuildOptions, build, build_structure, example_inputs
from spdify.sources import torchvision_config as config
from spdify.sources.structure import first_difference

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "squeezenet1_1"


def test_a_model_comes_with_its_crop_and_preprocessing() -> None:
    loaded = build(f"tv:{SMALL}", BuildOptions(num_classes=7))

    assert not loaded.model.training
    source = loaded.source
    assert (source.spec, source.kind, source.name) == (f"torchvision:{SMALL}", "torchvision", SMALL)
    assert (source.num_classes, source.kwargs, source.weights) == (7, {"num_classes": 7}, "random, seed 0")
    assert source.preprocessing is not None
    assert source.preprocessing.input_size == (3, 224, 224)
    assert source.preprocessing.crop_pct == 0.875
    args, kwargs = example_inputs(loaded.inputs, batch=2, seed=0)
    assert loaded.model(*args, **kwargs).shape == (2, 7)
    assert first_difference(loaded.model, build_structure(source, device="meta")) is None


@pytest.mark.parametrize(
    ("name", "size", "images", "classes"),
    [
        ("inception_v3", (3, 299, 299), 1, 1000),
        ("efficientnet_b3", (3, 300, 300), 1, 1000),
        ("r3d_18", (3, 16, 112, 112), 1, 400),
        ("mvit_v2_s", (3, 16, 224, 224), 1, 400),
        ("fcn_resnet50", (3, 520, 520), 1, 21),
        ("raft_small", (3, 128, 128), 2, None),
    ],
)
def test_sizes_come_from_the_weights_transforms(
    name: str, size: tuple[int, ...], images: int, classes: int | None
) -> None:
    weights = config.default_weights(name)

    assert config.default_input_size(weights, nn.Identity()) == size
    assert config.input_count(weights) == images
    assert config.class_count(weights) == classes


def test_detectors_take_the_size_that_they_resize_to() -> None:
    detector = nn.Module()
    detector.transform = torchvision.models.detection.transform.GeneralizedRCNNTransform((640, 800), 1333, [0], [1])
    weights = config.default_weights("fasterrcnn_resnet50_fpn")

    assert config.default_input_size(weights, detector) == (3, 800, 800)


def test_every_crop_share_leads_back_to_the_resize() -> None:
    """Dividing and rounding down, as timm's transforms do, must not lose a pixel."""
    checked = 0
    for name in torchvision.models.list_models():
        weights = config.default_weights(name)
        found = config.preprocessing(weights, (3, 8, 8))
        if found is None or not hasattr(weights.transforms(), "crop_size"):
            continue
        preset = weights.transforms()
        assert math.floor(preset.crop_size[0] / found.crop_pct) == preset.resize_size[0], name
        checked += 1
    assert checked > 80


@pytest.mark.parametrize("wishes", [{"in_chans": 1}, {"input_size": (1, 64, 64)}, {"model_kwargs": {"in_chans": 1}}])
def test_other_channels_are_refused_with_a_way_out(wishes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="for 1 input channels") as caught:
        build(f"tv:{SMALL}", BuildOptions(**wishes))

    assert "path/to/file.py:FACTORY" in caught.value.hint


def test_three_channels_are_what_torchvision_has() -> None:
    assert build(f"tv:{SMALL}", BuildOptions(in_chans=3)).source.kwargs == {}


def test_unknown_names_bring_near_ones() -> None:
    with pytest.raises(SourceError, match="in torchvision") as caught:
        build("tv:squeezenet1_2")

    assert "torchvision:squeezenet1_1" in caught.value.hint


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(SourceError, match="with nonsense=1: TypeError"):
        build(f"tv:{SMALL}", BuildOptions(model_kwargs={"nonsense": 1}))


def test_other_classes_than_the_weights_have_are_refused() -> None:
    with pytest.raises(UsageError, match="for 7 classes: they have 1000"):
        build(f"tv:{SMALL}", BuildOptions(pretrained=True, num_classes=7))


@pytest.mark.usefixtures("offline")
def test_pretrained_weights_offline_fail_quickly_and_say_how_to_go_on() -> None:
    start = time.monotonic()

    with pytest.raises(SourceError, match=rf"for torchvision:{SMALL} \(https://\S+\).*Name or service") as caught:
        build(f"tv:{SMALL}", BuildOptions(pretrained=True))

    assert "--checkpoint FILE" in caught.value.hint
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("offline")
def test_cached_weights_serve_offline(tmp_path: Path) -> None:
    weights = config.default_weights(SMALL)
    state = build(f"tv:{SMALL}", BuildOptions(seed=3)).model.state_dict()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / weights.url.rpartition("/")[2])

    loaded = build(f"tv:{SMALL}", BuildOptions(pretrained=True))

    assert loaded.source.weights == "pretrained, SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.model.state_dict().items())


def fetched(monkeypatch: pytest.MonkeyPatch, name: str, **arguments: object) -> None:
    """Have torchvision fetch, without a network, what a model built with `arguments` holds."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None, **arguments)
    state = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in model.state_dict().items()}
    weights = type(config.default_weights(name))
    monkeypatch.setattr(weights, "get_state_dict", lambda *_args, **_kwargs: state)


def test_what_the_weights_switch_on_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision adds an auxiliary classifier where it loads weights."""
    fetched(monkeypatch, "lraspp_mobilenet_v3_large")
    assert build("tv:lraspp_mobilenet_v3_large", BuildOptions(pretrained=True)).source.kwargs == {}

    fetched(monkeypatch, "deeplabv3_mobilenet_v3_large", aux_loss=True)
    loaded = build("tv:deeplabv3_mobilenet_v3_large", BuildOptions(pretrained=True))
    assert loaded.source.kwargs == {"aux_loss": True}
    assert first_difference(loaded.model, build_structure(loaded.source, device="meta")) is None


def test_attributes_that_the_weights_set_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """GoogLeNet with weights normalises its input anew and drops its auxiliary classifiers."""
    with torch.device("meta"):
        model = torchvision.models.GoogLeNet(init_weights=False)
    state = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in model.state_dict().items()}
    monkeypatch.setattr(torchvision.models.GoogLeNet_Weights, "get_state_dict", lambda *_a, **_k: state)

    loaded = build("tv:googlenet", BuildOptions(pretrained=True))

    assert loaded.source.kwargs == {"aux_logits": False, "transform_input": True}
    again = build_structure(loaded.source, device="meta")
    assert again.transform_input
    assert first_difference(loaded.model, again) is None


def test_a_structure_that_only_weights_give_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors freeze their batch norms where they load weights; no argument does that."""
    fetched(monkeypatch, "fasterrcnn_mobilenet_v3_large_320_fpn")

    with pytest.raises(SourceError, match="FrozenBatchNorm2d") as caught:
        build("tv:fasterrcnn_mobilenet_v3_large_320_fpn", BuildOptions(pretrained=True))

    assert "--checkpoint FILE" in caught.value.hint


def test_a_model_of_one_size_is_built_for_the_size_that_is_asked_for() -> None:
    assert build("tv:vit_b_32").inputs.args[0].shape == (1, 3, 224, 224)
    loaded = build("tv:vit_b_32", BuildOptions(input_size=(3, 96, 96)))
    assert loaded.model.image_size == 96
    assert loaded.source.kwargs["image_size"] == 96
    with pytest.raises(UsageError, match="squares only"):
        build("tv:vit_b_32", BuildOptions(input_size=(3, 96, 64)))
