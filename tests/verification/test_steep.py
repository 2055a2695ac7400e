"""Networks that turn one rounding into more than the tolerance: excused by what the original does, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from spdify.engine import apply
from spdify.verification import model_proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan


class Steep(nn.Module):
    """A norm that blows up what lies nine digits down."""

    def __init__(self, signal: float) -> None:
        super().__init__()
        self.conv, self.norm, self.signal = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4, eps=1e-30), signal

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(1 + self.signal * x))


def perturbed(size: float) -> Callable[[nn.Module, Plan], nn.Module]:
    def change(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        with torch.no_grad():
            converted.get_submodule("conv").get_parameter("weight")[0, 0] += size
        return converted

    return change


def test_rounding_that_the_original_shows_too_is_rounding(convert: Callable) -> None:
    check = convert(Steep(1e-9)).prove()["whole model, train"]
    assert check.outcome == "passed"
    assert 1e-9 < check.value < check.tolerance < 1e-5
    assert check.detail.startswith("rounding alone moves the original by ")


@pytest.mark.parametrize(("signal", "size"), [(1e-9, 1e-3), (1e-9, 1e-5), (1.0, 1e-7)])
def test_a_wrong_weight_is_more_than_that(
    signal: float, size: float, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_proof, "apply_lazily", perturbed(size))
    assert convert(Steep(signal)).prove()["whole model, train"].outcome == "failed"


class Constant(nn.Module):
    """A norm of maps that are the same everywhere: what it gives is nothing but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, 1), nn.InstanceNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).mean((2, 3), keepdim=True).expand(-1, -1, 1, 3))


def test_an_output_that_is_rounding_alone_is_not_compared(convert: Callable) -> None:
    checks = convert(Constant()).prove()
    for name in ("whole model, train", "whole model, eval"):
        assert checks[name].outcome == "not run"
        assert checks[name].detail.startswith("the original's output is nothing but rounding")
