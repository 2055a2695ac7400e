"""Converted networks of Ultralytics' package: exact, with the published counts, and in its own hands."""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING, Any

import pytest
import torch

import spdify
from spdify.engine.ultralytics_hooks import ConvertedConfig
from spdify.sources.ultralytics_package import ultralytics
from spdify.verification.compare import relative_error

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SIZE = (3, 64, 96)
#: What YOLOv5-SPD has more than the strided network, whatever the head; and the published head's counts before.
INCREASES = {"n": 384_000, "s": 1_536_000, "m": 3_456_000, "l": 6_144_000}
PUBLISHED = {
    "n": (1_867_405, 2.2),
    "s": (7_235_389, 8.7),
    "m": (21_172_173, 24.6),
    "l": (46_533_693, 52.7),
}


def moved(model: nn.Module) -> Any:  # noqa: ANN401 - with the package's attributes
    """Move weights and statistics, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9 + 0.2 * torch.rand(tensor.shape, generator=generator).to(tensor))
        # Statistics of what really reaches each norm, or nothing would reach the outputs.
        network: Any = model.train()
        for _ in range(20):
            network(images(next(model.parameters()).dtype))
    return model.eval()


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("scale", ["n", *(pytest.param(scale, marks=pytest.mark.slow) for scale in "sml")])
def test_yolov5_spd_has_exactly_the_released_parameters_more(scale: str) -> None:
    made = spdify.report(f"ultralytics:yolov5{scale}", rules="spd-released", input_size=(3, 64, 64))
    more = made.after.params - made.before.params
    assert more == INCREASES[scale]
    before, millions = PUBLISHED[scale]
    assert abs((before + more) / 1e6 - millions) < 0.1
    if scale == "s":
        assert before + more == 8_771_389


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolo11n"])
@pytest.mark.parametrize("rules", ["spd", "spd-released", "spd-paper"])
def test_conversions_are_exact(name: str, rules: str) -> None:
    conversion = spdify.convert(f"ultralytics:{name}", rules=rules, input_size=SIZE)
    assert len(conversion.plan.applied) == 7
    outcomes = {check.name: check.outcome for check in conversion.checks}
    assert outcomes["whole model, eval"] == outcomes["whole model, train"] == outcomes["live sites"] == "passed"
    assert "failed" not in outcomes.values()
    if rules == "spd-released":
        # Four in the backbone, two in the neck, each read by what follows; in the neck behind the concatenation.
        assert sum(d.leaves is not None for d in conversion.plan.applied) == 6
        sites = {a.path: a.sites for a in conversion.plan.adjustments if a.role == "consumer"}
        assert len(sites) >= 6


def test_the_neck_concatenates_between_space_to_depth_and_the_next_convolution() -> None:
    model: Any = spdify.convert("ultralytics:yolov5n", rules="spd-released", input_size=SIZE, proof="site").model
    assert type(model.model[18].conv).__name__ == "ConvSPD"
    assert type(model.model[19]).__name__ == "Concat"
    assert model.model[20].cv1.conv.in_channels == 4 * 64 + 64
    assert model.model[9].m.stride == 1


@pytest.mark.slow
def test_training_losses_are_the_same() -> None:
    conversion = spdify.convert("ultralytics:yolov5n", input_size=SIZE, proof="site")
    original: Any = spdify.sources.build("ultralytics:yolov5n").model
    hyperparameters = ultralytics("cfg").get_cfg()
    batch = {
        "img": images(torch.float64),
        "batch_idx": torch.tensor([0.0, 1.0, 1.0]),
        "cls": torch.tensor([[3.0], [7.0], [11.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.6], [0.3, 0.4, 0.2, 0.2], [0.7, 0.6, 0.3, 0.5]]),
    }
    losses = []
    for model in (original, conversion.model):
        network: Any = model.double().train()
        network.args = hyperparameters
        network.zero_grad()
        loss, parts = network(batch)
        sum(loss.values() if isinstance(loss, dict) else [loss.sum()]).sum().backward()
        losses.append((loss, parts, network.model[2].cv1.conv.weight.grad))
    assert relative_error(losses[0], losses[1]) < 1e-10


@pytest.mark.parametrize("rules", ["spd-released", pytest.param("spd", marks=pytest.mark.slow)])
def test_what_the_package_builds_from_its_configuration_is_converted(rules: str) -> None:
    model = moved(spdify.convert("ultralytics:yolov5n", rules=rules, input_size=SIZE, proof="site").model)
    assert isinstance(model.yaml, ConvertedConfig)
    again = type(model)(model.yaml, nc=80, verbose=False)
    again.load(model, verbose=False)
    assert relative_error(model(images()), again.eval()(images())) == 0
    fewer = type(model)(model.yaml, nc=5, verbose=False)
    assert type(fewer.model[1].conv) is type(model.model[1].conv)
    assert fewer.eval()(images())[0].shape[1] == 4 + 5


def test_networks_that_nobody_converted_are_built_as_ever() -> None:
    build = ultralytics("nn.tasks").DetectionModel
    spdify.convert("ultralytics:yolov5n", input_size=SIZE, proof="site")
    assert not any(type(m).__module__.startswith("spdify") for m in build("yolov5n.yaml", verbose=False).modules())


@pytest.mark.parametrize(
    ("rules", "overrides"),
    [
        ("spd-released", ()),
        pytest.param("spd", (), marks=pytest.mark.slow),
        pytest.param("spd-paper", (), marks=pytest.mark.slow),
        pytest.param("spd-released", ("strided-unit.channels=reduce",), marks=pytest.mark.slow),
    ],
)
def test_fuse_gives_the_same(rules: str, overrides: tuple[str, ...]) -> None:
    conversion = spdify.convert("ultralytics:yolov5n", rules=rules, overrides=overrides, input_size=SIZE, proof="site")
    model = moved(conversion.model.double())
    fused = copy.deepcopy(model).fuse(verbose=False)
    assert fused.is_fused()
    assert relative_error(model(images(torch.float64)), fused(images(torch.float64))) < 1e-12


def test_copies_and_pickles_remember() -> None:
    model = moved(spdify.convert("ultralytics:yolov5n", rules="spd-released", input_size=SIZE, proof="site").model)
    file = io.BytesIO()
    torch.save(copy.deepcopy(model), file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.yaml.plans == model.yaml.plans
    assert relative_error(model(images()), again(images())) == 0


def test_a_bundle_is_read_without_a_pickle_and_exported_for_the_package(tmp_path: Path) -> None:
    conversion = spdify.convert("ultralytics:yolov5n", input_size=SIZE, proof="site", num_classes=4)
    conversion.save(tmp_path / "bundle", onnx=False)
    loaded: Any = spdify.load(tmp_path / "bundle")
    assert relative_error(conversion.model.eval()(images()), loaded(images())) == 0
    settings = spdify.ExportSettings(format="ultralytics")
    record = spdify.export(tmp_path / "bundle", tmp_path / "pt", settings=settings)
    assert record.files == ("model.pt",)
    assert {check.name: check.outcome for check in record.checks} == dict.fromkeys(
        ("read back", "built again", "fuse()"), "passed"
    )
    yolo = ultralytics().YOLO(str(tmp_path / "pt" / "model.pt"))
    assert relative_error(loaded(images()), yolo.model.eval()(images())) == 0


def test_only_networks_of_the_package_and_only_with_blocks(tmp_path: Path) -> None:
    settings = spdify.ExportSettings(format="ultralytics")
    with pytest.raises(spdify.SpdifyError, match="no network of its package"):
        spdify.export("resnet18", tmp_path / "pt", settings=settings, input_size=(3, 64, 64))
    assert not (tmp_path / "pt").exists()
    with pytest.raises(spdify.SpdifyError, match="its trainer builds networks anew"):
        spdify.ExportSettings(format="ultralytics", form="fused")


def test_copies_of_a_configuration_keep_its_plans() -> None:
    config = ConvertedConfig({"nc": 80}, ("plan",))
    for other in (config.copy(), config | {"nc": 3}, copy.copy(config), copy.deepcopy(config)):
        assert isinstance(other, ConvertedConfig)
        assert other.plans == ("plan",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("yolov8n-ghost", "spd-released"),  # a depthwise convolution before a shared norm
        ("yolov3-tiny", "spd"),  # sites that are layers of the configuration themselves
        ("yolo26n", "spd"),  # a head that fuse() takes a part of
        ("yolov10n", "spd-released"),
        ("yolov8n-seg", "spd-released"),
        ("yolo11n-cls", "spd-released"),  # a classifier, whose norms have other constants
    ],
)
def test_other_families_are_exported_for_the_package(name: str, rules: str, tmp_path: Path) -> None:
    conversion = spdify.convert(f"ultralytics:{name}", rules=rules, input_size=SIZE, proof="site")
    conversion.save(tmp_path / "bundle", onnx=False)
    record = spdify.export(tmp_path / "bundle", tmp_path / "pt", settings=spdify.ExportSettings(format="ultralytics"))
    assert {check.outcome for check in record.checks} == {"passed"}


@pytest.mark.slow
def test_width_factors_on_a_network_with_one_activation_for_all() -> None:
    conversion = spdify.convert("ultralytics:yolov5n", input_size=SIZE, width_factor=1.25, proof="site")
    assert conversion.report.after.params > conversion.report.before.params
