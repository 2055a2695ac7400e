"""Tensors that follow a change of channels, and the way back."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from spdify.engine.carrying import first_copies, follow_change, old_channels, origins, read_change, shares
from spdify.errors import PlanError
from spdify.records import Layout, TensorChange

MIXED = Layout(runs=((2, 4), (3, 1)))


def test_copies_follow_their_channel() -> None:
    assert origins(MIXED) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4]
    assert first_copies(MIXED) == [0, 4, 8, 9, 10]
    assert (MIXED.old, MIXED.new, MIXED.copies) == (5, 11, None)


def test_positions_of_a_flattened_map_stay_together() -> None:
    flat = Layout(runs=((2, 2),), inner=3)
    assert origins(flat) == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert first_copies(flat) == [0, 1, 2, 6, 7, 8]


@pytest.mark.parametrize("how", ["select", "mean"])
@pytest.mark.parametrize("inner", [1, 3])
def test_what_is_read_is_the_old_channel(how: str, inner: int) -> None:
    layout = Layout(runs=((2, 4), (3, 1)), how=how, inner=inner)
    weight = torch.randn(7, layout.old, dtype=torch.float64)
    change = TensorChange(name="weight", axis=1, change="read", layout=layout)
    x = torch.randn(6, layout.new, dtype=torch.float64)
    grown = follow_change(weight, change)
    assert torch.allclose(x @ grown.T, old_channels(x, layout) @ weight.T)
    assert torch.equal(read_change(grown, change), weight)
    assert sum(shares(layout)) == pytest.approx(layout.old)


def test_what_is_repeated_is_read_back() -> None:
    change = TensorChange(name="running_mean", axis=0, change="repeat", layout=MIXED)
    values = torch.arange(5.0)
    grown = follow_change(values, change)
    assert grown.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4]
    assert torch.equal(read_change(grown, change), values)


def test_zeros_are_put_in_and_not_multiplied_by() -> None:
    change = TensorChange(name="weight", axis=1, change="read", layout=Layout(runs=((1, 4),)))
    assert follow_change(torch.tensor([[torch.inf]]), change).tolist() == [[torch.inf, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(4,), (6,), (), (2, 4)])
def test_another_number_of_entries_is_refused(shape: tuple[int, ...]) -> None:
    change = TensorChange(name="bias", axis=len(shape) - 1 if shape else 0, change="repeat", layout=MIXED)
    with pytest.raises(PlanError, match="expected 5 entries"):
        follow_change(torch.zeros(shape), change)


@pytest.mark.parametrize("runs", [((2, 10**9),), ((0, 1),), ((1, -1),)])
def test_layouts_are_bounded(runs: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValidationError):
        Layout(runs=runs)


def test_gradients_come_back_to_the_old_weight() -> None:
    weight = torch.randn(3, 5, requires_grad=True)
    change = TensorChange(name="weight", axis=1, change="read", layout=MIXED)
    follow_change(weight, change).sum().backward()
    assert torch.equal(weight.grad, torch.ones(3, 5))
