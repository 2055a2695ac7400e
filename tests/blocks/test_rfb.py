"""The receptive field block, against its definition."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from spdify.blocks import ReceptiveField
from tests.blocks.inserted import SHAPE, convolved, normed, roused, silent_after_a_step

#: (kernel, rate) of the layers of each branch.
BRANCHES = (((1, 1), (3, 1)), ((1, 1), (3, 1), (3, 3)), ((1, 1), (3, 1), (3, 1), (3, 5)))


def field(x: Tensor, state: dict[str, Tensor], *, training: bool) -> Tensor:
    branches = []
    for number, layers in enumerate(BRANCHES):
        y = x
        for index, (kernel, rate) in enumerate(layers):
            name = f"branches.{number}.{index}"
            weight = state[f"{name}.0.weight"]
            assert weight.shape[2:] == (kernel, kernel)
            y = normed(convolved(y, weight, rate), state, f"{name}.1", training=training).relu()
        branches.append(y)
    return convolved(torch.cat(branches, dim=1), state["merge.weight"])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("scale", "reduction", "activation"), [(0.1, 8, "none"), (2.5, 3, "relu"), (1.0, 99, "none")])
def test_it_is_its_definition(
    scale: float, reduction: int, activation: Literal["none", "relu"], training: bool
) -> None:
    block = roused(ReceptiveField(16, reduction=reduction, scale=scale, activation=activation)).train(training)
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    x = torch.randn(SHAPE, dtype=torch.float64)
    expected = x + scale * field(x, state, training=training)
    assert_close(block(x), expected.relu() if activation == "relu" else expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_it_starts_as_the_identity_to_the_last_bit(dtype: torch.dtype, training: bool) -> None:
    x = torch.randn(SHAPE).to(dtype)
    assert torch.equal(ReceptiveField(16).to(dtype).train(training)(x), x)
    with_relu = ReceptiveField(16, activation="relu").to(dtype).train(training)
    assert torch.equal(with_relu(x.relu()), x.relu())
    assert not torch.equal(with_relu(x), x)


def test_every_weight_learns_after_a_step() -> None:
    block = ReceptiveField(16, reduction=4).double()
    assert silent_after_a_step(block, torch.randn(SHAPE, dtype=torch.float64)) == []


def test_the_window_spans_what_is_said() -> None:
    # 5x5, then 3x3 of rate 5: 2 + 5 positions to each side.
    block = roused(ReceptiveField(1)).eval()
    x = torch.zeros(1, 1, 21, 21, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(parameter.abs() if name.endswith("weight") else parameter.abs() + 9)  # each ReLU is open
    block(x)[0, 0, 10, 10].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].any(1).nonzero().flatten()
    assert (rows.min(), rows.max()) == (3, 17)
