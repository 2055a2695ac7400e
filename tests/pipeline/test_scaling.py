"""Width and depth factors: a wider or deeper network that computes the same, then the rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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


@pytest.mark.parametrize("source", ["resnet18", "tv:resnet18", "mobilenetv2_050"])
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


def test_what_cannot_be_scaled_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.LayerNorm([8, 31, 31]), nn.Flatten(), nn.Linear(8 * 961, 2))
    for factors in ({"width_factor": 2.0}, {"depth_factor": 2.0}):
        with pytest.raises(UsageError, match=r"cannot scale the (width|depth) of Sequential by 2"):
            spdify.convert(plain, example_input=torch.randn(1, *SIZE), **factors)
