"""Dilated convolutions side by side, against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from spdify.blocks import AtrousPyramid
from tests.blocks.inserted import SHAPE, convolved, normed, roused, silent_after_a_step


def pyramid(x: Tensor, state: dict[str, Tensor], rates: tuple[int, ...], *, training: bool) -> Tensor:
    def layer(x: Tensor, conv: str, norm: str, rate: int = 1) -> Tensor:
        return normed(convolved(x, state[f"aspp.{conv}.weight"], rate), state, f"aspp.{norm}", training=training).relu()

    branches = [layer(x, "convs.0.0", "convs.0.1")]
    for index, rate in enumerate(rates, start=1):
        branches.append(layer(x, f"convs.{index}.0", f"convs.{index}.1", rate))
    last = f"convs.{len(rates) + 1}"
    mean = layer(x.mean((2, 3), keepdim=True), f"{last}.1", f"{last}.2")
    branches.append(mean.expand(-1, -1, *x.shape[2:]))
    together = layer(torch.cat(branches, dim=1), "project.0", "project.1")
    return convolved(together, state["expand.weight"])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("rates", "width"), [((1, 2, 3), 2), ((6, 12, 18), 5), ((1, 1, 2, 9), 1)])
def test_it_is_its_definition(rates: tuple[int, ...], width: int, training: bool) -> None:
    block = roused(AtrousPyramid(16, rates=rates, width=width)).train(training)
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    x = torch.randn(SHAPE, dtype=torch.float64)
    assert_close(block(x), x + pyramid(x, state, rates, training=training))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_it_starts_as_the_identity_to_the_last_bit(dtype: torch.dtype, training: bool) -> None:
    x = torch.randn(SHAPE).to(dtype)
    assert torch.equal(AtrousPyramid(16, width=2).to(dtype).train(training)(x), x)


def test_every_weight_learns_after_a_step() -> None:
    block = AtrousPyramid(16, width=4).double()
    assert silent_after_a_step(block, torch.randn(SHAPE, dtype=torch.float64)) == []


def test_it_draws_no_random_numbers() -> None:
    block = AtrousPyramid(16, width=2)
    assert not any(isinstance(module, nn.Dropout) for module in block.modules())
    torch.manual_seed(0)
    block(torch.ones(SHAPE))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)


def test_one_image_is_too_few_to_train_on() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        AtrousPyramid(16, width=2)(torch.randn(1, *SHAPE[1:]))
