"""Other weights in an exported program: what maps onto it, and what is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tests.exporting.networks import Residual, check_named, randomised

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from spdify.records import Check, OnnxRecord

    Export = Callable[..., OnnxRecord]


class Odd(nn.Module):
    """Tied parameters, one parameter under two names, constants, a non-persistent buffer, an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.gain = nn.Parameter(torch.randn(3, 1, 1))
        self.alias = self.gain
        self.unused = nn.Linear(2, 2)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("kept", torch.randn(7))
        self.register_buffer("rebuilt", torch.randn(7), persistent=False)
        self.plain = torch.randn(7)
        self.empty = nn.Parameter(torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.second(self.first(x) * self.kept + self.rebuilt))
        return y * self.gain + self.alias + self.plain * torch.tensor([2.0])


def perturbed_check(record: OnnxRecord) -> Check:
    return check_named(record, "onnx perturbed weights")


def test_tied_and_unused_weights_constants_and_buffers(export: Export) -> None:
    model = Odd()
    weights = randomised(model)
    assert not torch.equal(weights["first.weight"], weights["second.weight"])  # Unified: the model has one.
    record = export(model, perturbed=weights)
    assert perturbed_check(record).outcome == "passed", perturbed_check(record)


def test_equal_values_under_two_names_are_two_tensors(export: Export) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    record = export(model, perturbed=randomised(model))
    assert perturbed_check(record).outcome == "passed"


def test_names_of_another_model_are_not_run(export: Export) -> None:
    weights = randomised(Residual())
    del weights["stem.bias"]
    check = perturbed_check(export(Residual(), perturbed=weights))
    assert check.outcome == "not run"
    assert "`stem.bias`" in check.detail


def test_shapes_of_another_model_are_not_run(export: Export) -> None:
    weights = randomised(Residual()) | {"stem.bias": torch.ones(7)}
    check = perturbed_check(export(Residual(), perturbed=weights))
    assert check.outcome == "not run"
    assert "expected shape (4,), got (7,)" in check.detail


def test_a_program_that_lost_a_tensor_is_not_run(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    from spdify.exporting import weights

    holds = weights._holds
    monkeypatch.setattr(weights, "_holds", lambda value, tensor: value.name != "norm.bias" and holds(value, tensor))
    model = Residual()
    check = perturbed_check(export(model, perturbed=randomised(model)))
    assert check.outcome == "not run"
    assert "`norm.bias`" in check.detail


def test_weights_with_which_the_model_overflows_are_not_run(export: Export) -> None:
    model = Residual()
    record = export(model, perturbed={name: tensor * 3e38 for name, tensor in randomised(model).items()})
    assert perturbed_check(record).outcome == "not run"
    assert record.file == "model.onnx"


def test_the_file_has_the_models_own_weights(export: Export) -> None:
    model = Residual()
    record = export(model, perturbed=randomised(model))
    assert check_named(record, "onnx batch 3").outcome == "passed"
