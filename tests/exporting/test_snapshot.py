"""A model that writes to itself when it runs is as before afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from spdify.exporting.snapshot import preserved
from tests.exporting.networks import randomised

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import OnnxRecord


class Caching(nn.Module):
    """Keeps what it derives from its weights, as LeViT does in eval mode, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(7))
        self.register_buffer("calls", torch.zeros(()))
        self.cache: dict[str, Tensor] = {}
        self.dropout = nn.Dropout().train()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.shape
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias.exp()
        return x + self.cache["bias"]


def test_an_export_leaves_no_trace(export: Callable[..., OnnxRecord]) -> None:
    model = Caching().eval()
    cache, names = model.cache, sorted(vars(model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = export(model, perturbed=randomised(model))
    assert {check.outcome for check in record.checks} == {"passed"}  # The stale cache would fail the perturbed one.
    assert model.cache is cache
    assert not cache
    assert sorted(vars(model)) == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_modes_are_put_back_one_by_one_also_after_a_fault() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)).eval()
    model[1].train()

    def meddle() -> None:
        with preserved(model):
            model.train()
            model(torch.randn(4, 3))
            model[0] = nn.Identity()
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        meddle()
    assert [module.training for module in model.modules()] == [False, False, True]
    assert isinstance(model[0], nn.Dropout)
    assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert model[1].num_batches_tracked == 0


def test_random_numbers_of_the_caller_are_not_touched(export: Callable[..., OnnxRecord]) -> None:
    model = nn.Conv2d(3, 2, 3)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    export(model)
    assert torch.equal(torch.rand(1), expected)
