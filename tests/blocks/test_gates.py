"""Gates by channel and by position, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from spdify.blocks import ConvolutionalBlockAttention, SqueezeExcitation
from tests.blocks.inserted import SHAPE, convolved, normed, roused, silent_after_a_step

GATES: dict[str, type[nn.Module]] = {"se": SqueezeExcitation, "cbam": ConvolutionalBlockAttention}


def mlp(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Two layers on (N, C), the first with a ReLU."""
    for layer in ("fc1", "fc2"):
        x = x @ state[f"{name}.{layer}.weight"][:, :, 0, 0].T + state.get(f"{name}.{layer}.bias", torch.zeros(1))
        x = x.clamp(min=0) if layer == "fc1" else x
    return x


def doubled_sigmoid(x: Tensor) -> Tensor:
    return 2 / (1 + (-x).exp())


@pytest.mark.parametrize("reduction", [1, 4, 16, 100])
def test_squeeze_and_excitation_is_its_definition(reduction: int) -> None:
    block = roused(SqueezeExcitation(16, reduction=reduction))
    x = torch.randn(SHAPE, dtype=torch.float64)
    gate = doubled_sigmoid(mlp(x.mean((2, 3)), block.state_dict(), "gate"))
    assert_close(block(x), x * gate[:, :, None, None])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_cbam_is_its_definition(kernel: int, training: bool) -> None:
    block = roused(ConvolutionalBlockAttention(16, reduction=4, kernel_size=kernel)).train(training)
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    x = torch.randn(SHAPE, dtype=torch.float64)
    by_channel = mlp(x.mean((2, 3)), state, "gate.channel") + mlp(x.flatten(2).max(2).values, state, "gate.channel")
    y = x * doubled_sigmoid(by_channel)[:, :, None, None]
    both = torch.stack([y.mean(1), y.max(1).values], dim=1)
    by_position = convolved(both, state["gate.spatial.conv.conv.weight"])
    by_position = normed(by_position, state, "gate.spatial.conv.bn", training=training)
    assert_close(block(x), y * doubled_sigmoid(by_position))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", GATES)
def test_it_starts_as_the_identity_to_the_last_bit(kind: str, dtype: torch.dtype, training: bool) -> None:
    block = GATES[kind](16).to(dtype).train(training)
    x = torch.randn(SHAPE).to(dtype)
    x[0, 0] = torch.finfo(dtype).smallest_normal / 4  # half of what is not normal may be no number of the precision
    x[0, 1] = 3 * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x[1, 0, 0, 0] = torch.finfo(dtype).max / 16  # sums of a few must be numbers too
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("seed", range(5))
def test_every_weight_learns_after_a_step_however_narrow_it_is(kind: str, channels: int, seed: int) -> None:
    torch.manual_seed(seed)
    block = GATES[kind](channels).double()
    # Hardly any difference between images, as behind many layers: each hidden channel is open for all or for none.
    x = torch.randn(channels, 1, 1) + 0.1 * torch.randn(3, channels, 7, 5)
    assert silent_after_a_step(block, x.double()) == []


@pytest.mark.parametrize("kind", GATES)
def test_gates_lie_between_zero_and_two(kind: str) -> None:
    x = torch.rand(SHAPE, dtype=torch.float64) + 0.1
    ratio = roused(GATES[kind](16))(100 * x) / (100 * x)
    top = 2 if kind == "se" else 4
    assert ratio.min() >= 0
    assert ratio.max() <= top
    assert ratio.max() > 1.01  # so they are used


@pytest.mark.parametrize("kind", GATES)
def test_hidden_channels_come_in_pairs(kind: str) -> None:
    weight = next(p for name, p in GATES[kind](16, reduction=4).named_parameters() if name.endswith("fc1.weight"))
    assert len(weight) == 4
    assert torch.equal(weight[:2], -weight[2:])
    assert not torch.equal(weight[0], weight[1])
