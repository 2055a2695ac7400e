"""SPDCondConv against timm's CondConv2d."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from timm.layers import CondConv2d
from torch import fx, nn

from spdify.blocks import SPDCondConv
from spdify.blocks.phases import scatter_taps, split_axis

if TYPE_CHECKING:
    from spdify.blocks.spd_conv import Form

SIZES = [(9, 12), (10, 11), (13, 9)]


def block_of(conv: Any, form: Form = "space_to_depth") -> SPDCondConv:  # noqa: ANN401 - timm's class
    windows = zip(conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    axes = [split_axis(*window) for window in windows]
    reach = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    block = SPDCondConv(
        conv.in_channels, conv.out_channels, [a.kernel for a in axes], [a.scale for a in axes],
        [a.padding for a in axes], num_experts=conv.num_experts, groups=conv.groups, bias=conv.bias is not None,
        extent=reach if conv.dynamic_padding else (), form=form,
    ).double()  # fmt: skip
    with torch.no_grad():
        each = conv.weight.reshape(-1, *conv.weight_shape[1:])
        block.weight.copy_(scatter_taps(each, axes).reshape(conv.num_experts, -1))
        if block.bias is not None:
            block.bias.copy_(conv.bias)
    return block


@pytest.mark.parametrize("form", ["space_to_depth", "strided"])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": "same"},
        {"kernel_size": 5, "stride": 2, "padding": "same", "groups": 4, "num_experts": 8},
        {"kernel_size": 5, "stride": 3, "groups": 2, "bias": True, "num_experts": 1},
        {"kernel_size": 3, "stride": 2, "padding": "same", "dilation": 2, "bias": True},
        {"kernel_size": 1, "stride": 2},
    ],
    ids=str,
)
def test_equals_the_conditional_convolution(window: dict[str, Any], form: Form) -> None:
    torch.manual_seed(0)
    conv = CondConv2d(4, 8, **window).double()
    block = block_of(conv, form)
    for batch, size in zip((1, 2, 3), SIZES, strict=True):
        x = torch.randn(batch, 4, *size, dtype=torch.float64, requires_grad=True)
        routing = torch.randn(batch, conv.num_experts, dtype=torch.float64, requires_grad=True)
        expected, actual = conv(x, routing), block(x, routing)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        cotangent = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, [x, routing], cotangent)
        torch.testing.assert_close(torch.autograd.grad(actual, [x, routing], cotangent), wanted)


def test_each_sample_has_its_own_weight() -> None:
    block = SPDCondConv(4, 8, num_experts=2)
    x, routing = torch.randn(1, 4, 8, 8).expand(2, -1, -1, -1), torch.eye(2)
    y = block(x, routing)
    assert (y[0] - y[1]).abs().max() > 1e-3
    torch.testing.assert_close(block(x, routing.flip(0)), y.flip(0))


def test_any_tracer_sees_one_node() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = SPDCondConv(4, 8, extent=(3, 3))

        def forward(self, x: torch.Tensor, routing: torch.Tensor) -> torch.Tensor:
            return self.block(x, routing)  # type: ignore[no-any-return]

    network = Network()
    traced = fx.symbolic_trace(network)
    assert [node.name for node in traced.graph.nodes if node.op == "call_function"] == ["spd_cond_conv"]
    for batch in (1, 3):
        x, routing = torch.randn(batch, 4, 9, 11), torch.rand(batch, 4)
        torch.testing.assert_close(copy.deepcopy(traced)(x, routing), network(x, routing))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "into 3 groups"),
        ({"extent": (3,)}, "one entry per axis"),
        ({"padding": [(1, 0)] * 2}, "multiple"),
    ],
)
def test_arguments_that_do_not_fit_are_faults(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPDCondConv(4, 8, **arguments)


def test_repr() -> None:
    assert "num_experts=4, groups=1, bias=False" in repr(SPDCondConv(4, 8))
    assert SPDCondConv(4, 8).stride == (2, 2)
