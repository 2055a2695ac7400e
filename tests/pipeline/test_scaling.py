"""Width and depth factors: a wider or deeper network that computes the same, then the rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import spdify
from spdify.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (3, 64, 64)


def outcomes(conversion: spdify.Conversion) -> dict[str, str]:
    return {check.name: check.outcome for check in conversion.checks}


def output_of(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.ones(2, *SIZE).cumsum(-1) / 64)


SOURCES = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "tv:resnet18")]


@pytest.mark.parametrize("source", [*SOURCES, "mobilenetv2_050"])
def test_deeper_and_wider_is_the_same_function(source: str, tmp_path: Path) -> None:
    conversion = spdify.convert(source, depth_factor=1.5, width_factor=1.25, rules="spd-released", input_size=SIZE)
    found = outcomes(conversion)
    for step in ("depth 1.5", "width 1.25"):
        assert found[f"scaled ({step}): whole model, train"] == "passed"
        assert found[f"scaled ({step}): whole model, eval"] == "passed"
    original = spdify.convert(source, rules="spd-released", input_size=SIZE).original
    assert torch.allclose(output_of(conversion.model), output_of(original), atol=1e-4)
    assert conversion.report.before.params == sum(p.numel() for p in original.parameters())
    conversion.save(tmp_path / "bundle", onnx=False)
    assert torch.equal(output_of(spdify.load(tmp_path / "bundle")), output_of(conversion.model))


@pytest.mark.slow
def test_channels_become_multiples_of_8_and_stages_get_more_blocks() -> None:
    model = spdify.convert("resnet18", depth_factor=2, width_factor=1.3, rules="spd", input_size=SIZE).model
    assert [len(getattr(model, f"layer{i}")) for i in (1, 2, 3, 4)] == [4, 4, 4, 4]
    assert model.bn1.num_features == math.ceil(64 * 1.3 / 8) * 8 == 88
    assert all(m.out_channels % 8 == 0 for m in model.modules() if isinstance(m, nn.Conv2d))


def test_further_filters_are_drawn_and_not_copies() -> None:
    conversion = spdify.convert("resnet18", width_factor=1.25, rules="spd", input_size=SIZE)
    weight = conversion.model.layer1[0].conv1.weight
    assert weight.shape == (80, 80, 3, 3)
    assert not torch.equal(weight[1], weight[0])
    assert weight[1].any()
    assert not weight[0, 1].any()  # the old filters do not read the new channels yet


def test_a_step_that_takes_out_says_so() -> None:
    conversion = spdify.convert("resnet18", depth_factor=0.5, width_factor=0.5, rules="spd", input_size=SIZE)
    model = conversion.model
    assert [len(getattr(model, f"layer{i}")) for i in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert model.bn1.num_features == 32
    assert all("another function" in words for words in conversion.report.scaling)
    found = outcomes(conversion)
    assert found["scaled (width 0.5): whole model, eval"] == "measured"
    assert found["whole model, eval"] == "passed"  # of the rules, from the scaled network on


def test_a_block_with_statistics_is_silenced_whatever_it_has_learned() -> None:
    conversion = spdify.convert("mobilenetv2_050", depth_factor=2, rules="spd", input_size=SIZE)
    assert not conversion.model.blocks[2][-1].bn3.weight.any()
    assert outcomes(conversion)["scaled (depth 2): statistics, train"] == "passed"


@pytest.mark.parametrize("factor", [0.0, -1.0, 17.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["width_factor", "depth_factor"])
def test_factors_that_are_none_are_refused(name: str, factor: float) -> None:
    with pytest.raises(UsageError, match="cannot scale by a"):
        spdify.convert("resnet18", input_size=SIZE, **{name: factor})


class Block(nn.Module):
    """A convolution with its norm: residual or not, with dropout or not."""

    def __init__(self, *, residual: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(drop)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.norm(self.conv(x)))
        return torch.relu(x + y if self.residual else y)


def network(*stages: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def stage(**options: Any) -> nn.Module:  # noqa: ANN401 - of the block
    return nn.Sequential(Block(**options), Block(**options))


def test_stages_that_stay_are_named_with_the_reason() -> None:
    model = network(stage(), stage(residual=False), stage(drop=0.1))
    conversion = spdify.convert(model, example_input=torch.randn(1, *SIZE), depth_factor=2, rules="spd")
    assert [len(conversion.model[i]) for i in (2, 3, 4)] == [4, 2, 2]
    (plan,), (words,) = conversion.earlier_plans, conversion.report.scaling
    assert [left.path for left in plan.left_alone] == ["3", "4"]
    assert words.startswith("depth 2: blocks of 2 2 → 4; not the others, since")
    assert "does not pass on what it gets, whichever of its last layers is zero (3)" in words
    assert "drops at random, and a copy would draw random numbers of its own (4)" in words


def test_blocks_without_residual_are_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"no stage gets another number of blocks: .*does not pass on .*\(2\)"):
        spdify.convert(network(stage(residual=False)), example_input=torch.randn(1, *SIZE), depth_factor=2)


def test_a_number_of_blocks_that_rounds_to_itself_is_the_reason() -> None:
    with pytest.raises(UsageError, match=r"2 blocks times 1\.1 are as many, rounded \(2\)"):
        spdify.convert(network(stage()), example_input=torch.randn(1, *SIZE), depth_factor=1.1)


def test_blocks_whose_channels_grow_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot scale the depth of DenseNet by 2"):
        spdify.convert("densenet121", depth_factor=2, input_size=SIZE)


def test_layer_scales_are_silenced() -> None:
    conversion = spdify.convert("convnext_atto", depth_factor=2, rules="spd", input_size=SIZE)
    assert outcomes(conversion)["scaled (depth 2): whole model, train"] == "passed"


def test_every_layer_that_stays_narrow_is_in_the_plan_with_its_reason() -> None:
    conversion = spdify.convert("convnext_atto", width_factor=1.25, rules="spd", input_size=SIZE)
    (plan,), (words,) = conversion.earlier_plans, conversion.report.scaling
    assert words.startswith("width 1.25: 12 of 28 dense convolutions wider; not the others, since")
    assert "LayerNorm2d is not known to work on each channel by itself (stem.0)" in words
    assert "and 13 other reasons; same function" in words
    assert len(plan.left_alone) == 28 - 12
    assert all(left.reason and left.operator == "Conv2d" for left in plan.left_alone)


@pytest.mark.slow
def test_a_scaled_bundle_is_scaled_and_converted_again(tmp_path: Path) -> None:
    first = spdify.convert("resnet18", depth_factor=2, width_factor=1.25, rules="spd-released", input_size=SIZE)
    first.save(tmp_path / "first", onnx=False)
    again = spdify.convert(tmp_path / "first", rules="spd", width_factor=1.25)
    assert outcomes(again)["scaled (width 1.25): whole model, train"] == "passed"
    assert torch.allclose(output_of(again.model), output_of(first.model), atol=1e-4)
    again.save(tmp_path / "again", onnx=False)
    assert torch.equal(output_of(spdify.load(tmp_path / "again")), output_of(again.model))


def test_what_cannot_be_scaled_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.LayerNorm([8, 31, 31]), nn.Flatten(), nn.Linear(8 * 961, 2))
    for factors in ({"width_factor": 2.0}, {"depth_factor": 2.0}):
        with pytest.raises(UsageError, match=r"cannot scale the (width|depth) of Sequential by 2"):
            spdify.convert(plain, example_input=torch.randn(1, *SIZE), **factors)
