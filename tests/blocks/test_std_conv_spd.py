"""StdConvSPD against the weight-standardised convolutions of timm."""

from __future__ import annotations

from typing import Any

import pytest
import timm.layers
import torch
from torch import nn

from spdify.blocks import StdConvSPD

SIZES = [(9, 12), (10, 11), (13, 9)]


def block_like(conv: Any, **flags: Any) -> StdConvSPD:  # noqa: ANN401 - timm's classes have no types
    gain = hasattr(conv, "gain")
    block = StdConvSPD(
        4, 6, conv.kernel_size, conv.stride, conv.padding, conv.dilation, groups=conv.groups,
        bias=conv.bias is not None, gain_scale=conv.scale if gain else None, eps=conv.eps, **flags,
    )  # fmt: skip
    block.load_state_dict(conv.state_dict(), strict=not flags)
    return block


@pytest.mark.parametrize(
    "conv",
    [
        timm.layers.StdConv2d(4, 6, 3, 2),
        timm.layers.StdConv2d(4, 6, 3, 2, 0, eps=1e-3, bias=True, groups=2),
        timm.layers.ScaledStdConv2d(4, 6, 3, 2, gamma=1.7),
        timm.layers.ScaledStdConv2d(4, 6, 1, 2, bias=False),
    ],
    ids=str,
)
def test_phase_zero_is_the_strided_convolution(conv: nn.Module) -> None:
    for p in conv.parameters():
        nn.init.normal_(p)
    block, reduced = block_like(conv), block_like(conv, reduce=True)
    for size in SIZES:
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(block(x)[:, ::4], conv(x))
        torch.testing.assert_close(reduced(x), conv(x))


def test_same_padding() -> None:
    conv = timm.layers.ScaledStdConv2dSame(4, 6, 4, 3, gamma=0.5)
    block = StdConvSPD(4, 6, 4, 3, padding_mode="same", gain_scale=conv.scale, eps=conv.eps)
    block.load_state_dict(conv.state_dict())
    for size in SIZES:
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(block(x)[:, ::9], conv(x))


def test_another_eps_is_seen() -> None:
    conv = timm.layers.StdConv2d(4, 6, 3, 2)
    block = block_like(conv)
    block.eps = 0.1
    x = torch.randn(2, 4, 9, 12)
    assert (block(x)[:, ::4] - conv(x)).abs().max() > 1e-3


def test_the_start() -> None:
    block = StdConvSPD(4, 6, 3, gain_scale=0.3)
    assert list(block.state_dict()) == ["weight", "bias", "gain"]
    assert block.gain is not None
    assert torch.equal(block.gain, torch.ones(6, 1, 1, 1))
    nn.init.zeros_(block.gain)
    block.reset_parameters()
    assert torch.equal(block.gain, torch.ones(6, 1, 1, 1))
    assert repr(block).endswith("eps=1e-06, gain_scale=0.3)")
    assert repr(StdConvSPD(4, 6)).endswith("eps=1e-06)")
