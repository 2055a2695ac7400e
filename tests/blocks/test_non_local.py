"""Attention over all positions, against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from spdify.blocks import NonLocal
from tests.blocks.inserted import SHAPE, convolved, normed, roused, silent_after_a_step


def attended(x: Tensor, state: dict[str, Tensor], divisor: float) -> Tensor:
    """Give, position by position, the mean of g weighed by the exponential of θᵀφ."""
    maps = []
    for layer in ("t", "p", "g"):
        weight, bias = state[f"attention.{layer}.weight"], state[f"attention.{layer}.bias"]
        maps.append((convolved(x, weight) + bias[:, None, None]).flatten(2))
    theta, phi, g = maps
    columns = []
    for position in range(theta.shape[2]):
        likeness = (theta[:, :, position, None] * phi).sum(1) / divisor
        shares = likeness.exp() / likeness.exp().sum(1, keepdim=True)
        columns.append((g * shares[:, None]).sum(2))
    y = torch.stack(columns, dim=2).unflatten(2, x.shape[2:])
    return convolved(y, state["attention.z.weight"]) + state["attention.z.bias"][:, None, None]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("reduction", "scale"), [(2, True), (1, False), (8, True), (100, False)])
def test_it_is_its_definition(reduction: int, scale: bool, training: bool) -> None:
    block = roused(NonLocal(16, reduction=reduction, scale=scale)).train(training)
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    x = torch.randn(SHAPE, dtype=torch.float64)
    expected = normed(attended(x, state, 4.0 if scale else 1.0), state, "attention.norm", training=training)
    assert_close(block(x), x + expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_it_starts_as_the_identity_to_the_last_bit(dtype: torch.dtype, training: bool) -> None:
    x = torch.randn(SHAPE).to(dtype)
    assert torch.equal(NonLocal(16).to(dtype).train(training)(x), x)


def test_every_weight_learns_after_a_step() -> None:
    block = NonLocal(16).double()
    assert silent_after_a_step(block, torch.randn(SHAPE, dtype=torch.float64)) == []
    assert block.get_parameter("attention.norm.weight").all()


def test_there_is_at_least_one_channel_inside() -> None:
    assert NonLocal(3, reduction=64).get_parameter("attention.t.weight").shape == (1, 3, 1, 1)
