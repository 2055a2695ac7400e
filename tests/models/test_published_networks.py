"""The networks published with SPD-Conv, from timm's and torchvision's ResNets by two rulebooks: counts and maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import spdify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.records import Report

RULES = ("spd-lowres", "spd-released")
#: source, classes, size → parameters in millions, MACs in billions. Counted from the released code.
PUBLISHED = {
    ("resnet50", 10, 32): (27.65, 0.447),
    ("resnet50", 100, 32): (27.84, 0.447),
    ("tv:resnet50", 10, 32): (27.65, 0.447),
    ("tv:resnet50", 100, 32): (27.84, 0.447),
    ("resnet18", 200, 64): (20.57, 1.064),
    ("tv:resnet18", 200, 64): (20.57, 1.064),
}
MAPS = {32: [16, 16, 8, 4, 2], 64: [32, 32, 16, 8, 4]}


def report_of(source: str, classes: int, size: int) -> Report:
    return spdify.report(source, rules=RULES, num_classes=classes, input_size=(3, size, size))


@pytest.mark.parametrize(("network", "counts"), PUBLISHED.items(), ids=lambda value: "-".join(map(str, value)))
def test_counts_are_the_published_ones(network: tuple[str, int, int], counts: tuple[float, float]) -> None:
    after = report_of(*network).after
    assert (round(after.params / 1e6, 2), round(after.macs / 1e9, 3)) == counts


def test_all_class_counts_differ_by_the_classifier_alone() -> None:
    few, many = (report_of("resnet50", classes, 32).after for classes in (100, 200))
    assert many.params - few.params == 100 * (2048 + 1)


@pytest.mark.parametrize("source", ["resnet50", "tv:resnet18"])
@pytest.mark.parametrize("size", MAPS)
def test_maps_have_the_published_sizes(source: str, size: int) -> None:
    model = spdify.convert(source, rules=RULES, num_classes=10, input_size=(3, size, size), proof="site").model
    sizes = []
    for stage in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(stage).register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    with torch.no_grad():
        model(torch.randn(2, 3, size, size))
    assert sizes == MAPS[size]


def channels_of(model: nn.Module) -> Mapping[str, tuple[int, int]]:
    convolutions = {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return {path: (m.in_channels, m.out_channels) for path, m in convolutions.items()}


def test_the_stem_and_the_first_blocks_are_as_released() -> None:
    conversion = spdify.convert("resnet50", rules=RULES, num_classes=10, input_size=(3, 32, 32))
    model = conversion.model
    assert isinstance(model.act1, nn.SiLU)
    assert isinstance(model.maxpool, nn.Identity)
    assert model.conv1.weight.shape == (64, 12, 1, 1)
    channels = channels_of(model)
    for stage, width in (("layer2", 128), ("layer3", 256), ("layer4", 512)):
        block = model.get_submodule(stage)[0]
        assert block.conv2.weight.shape == (width, width, 3, 3)
        assert block.bn2.num_features == 4 * width
        assert channels[f"{stage}.0.conv3"] == (4 * width, 4 * width)
        assert block.downsample[0].stride == (2, 2)
        assert not block.conv3.weight[:, 1::4].any()
    by_name = {check.name: check for check in conversion.checks}
    assert by_name["whole model, train"].outcome == by_name["whole model, eval"].outcome == "passed"


def test_trained_from_scratch_everything_new_is_random_and_the_same_each_time() -> None:
    first, second = (
        spdify.convert("resnet18", rules=RULES, init="random", num_classes=10, input_size=(3, 32, 32)) for _ in range(2)
    )
    weight = first.model.layer2[0].conv2.weight
    assert weight[:, 1::4].all()
    assert torch.equal(weight, second.model.layer2[0].conv2.weight)
    assert all(d.claim is not None and d.claim.value == "reinitialised" for d in first.plan.applied)
    assert not [c for c in first.checks if c.name.startswith("whole model") and c.outcome == "passed"]
