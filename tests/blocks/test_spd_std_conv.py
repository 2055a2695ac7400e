"""SPDStdConv and SPDStdPointwiseConv against the weight-standardised convolutions of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import timm.layers
import torch
from torch import nn

from spdify.blocks import SPDStdConv, SPDStdPointwiseConv
from spdify.blocks.spd_std_conv import standardised

if TYPE_CHECKING:
    from spdify.blocks.spd_conv import Form

SIZES = [(9, 12), (10, 11), (13, 9)]


def convolution(*, scaled: bool, same: bool, **window: Any) -> nn.Module:  # noqa: ANN401 - a convolution's arguments
    name = f"{'Scaled' * scaled}StdConv2d{'Same' * same}"
    conv: nn.Module = getattr(timm.layers, name)(6, 8, bias=True, **window)
    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    return conv.double()


def block_of(conv: Any, form: Form = "space_to_depth", *, odd: bool = False, same: bool = False) -> SPDStdConv:  # noqa: ANN401 - timm's
    scale = getattr(conv, "scale", None)
    block = SPDStdConv(
        6, 8, conv.kernel_size, conv.stride, conv.padding, conv.dilation, groups=conv.groups, gain_scale=scale,
        eps=conv.eps, odd=odd, same=same, form=form,
    ).double()  # fmt: skip
    missing, unexpected = block.load_state_dict(conv.state_dict(), strict=False)
    assert (missing, unexpected) == (["phase_weight"], [])
    return block


@pytest.mark.parametrize("form", ["space_to_depth", "strided"])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2, "eps": 1e-2},
        {"kernel_size": 7, "stride": 4, "padding": 3},
        {"kernel_size": 3, "stride": 3, "padding": 2, "dilation": 2},
        {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 1)},
    ],
    ids=str,
)
def test_equals_the_standardised_convolution(window: dict[str, Any], form: Form, *, scaled: bool, odd: bool) -> None:
    torch.manual_seed(0)
    conv = convolution(scaled=scaled, same=False, **window)
    block = block_of(conv, form, odd=odd)
    for size in SIZES:
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(block(x), conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (4, 3, 1), (2, 3, 1), (3, 2, 3), (7, 2, 1)])
def test_equals_that_with_same_padding(kernel: int, stride: int, dilation: int, *, scaled: bool) -> None:
    conv = convolution(scaled=scaled, same=True, kernel_size=kernel, stride=stride, dilation=dilation)
    block = block_of(conv, same=True)
    for size in SIZES:
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(block(x), conv(x), rtol=1e-12, atol=1e-12)


def test_the_gradients_of_the_original_weights_are_the_same() -> None:
    torch.manual_seed(0)
    conv = convolution(scaled=True, same=False, kernel_size=3, stride=2, padding=1)
    block = block_of(conv)
    x = torch.randn(2, 6, 9, 10, dtype=torch.float64)
    for module in (conv, block):
        module(x).square().sum().backward()
    for name, parameter in conv.named_parameters():
        torch.testing.assert_close(block.get_parameter(name).grad, parameter.grad)
    gradient = block.phase_weight.grad
    assert gradient is not None
    assert (gradient != 0).all(), "the zero taps learn"


def test_the_filter_is_standardised_before_zeros_come_in() -> None:
    """Standardising the scattered weight would be another function: the zeros count in its mean and variance."""
    conv = convolution(scaled=False, same=False, kernel_size=3, stride=2, padding=1)
    block = block_of(conv)
    x = torch.randn(2, 6, 9, 10, dtype=torch.float64)
    with torch.no_grad():
        block.weight += 1  # a mean is taken out: no change
    torch.testing.assert_close(block(x), conv(x))
    with torch.no_grad():
        block.phase_weight += 1  # of these none is
    assert (block(x) - conv(x)).abs().max() > 1


def test_standardised_filters_have_mean_zero_and_the_gain_for_deviation() -> None:
    weight, gain = torch.randn(5, 7, 3, dtype=torch.float64) + 4, torch.rand(5, 1, 1, dtype=torch.float64)
    found = standardised(weight, gain, 0.5, 1e-15)
    torch.testing.assert_close(found.mean((1, 2)), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(found.flatten(1).std(1, unbiased=False), 0.5 * gain.flatten())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_pointwise_one(groups: int, *, scaled: bool) -> None:
    conv: Any = convolution(scaled=scaled, same=False, kernel_size=1, stride=2, groups=groups)
    scale = conv.scale if scaled else None
    block = SPDStdPointwiseConv(6, 8, groups=groups, gain_scale=scale, eps=conv.eps).double()
    missing, unexpected = block.load_state_dict(conv.state_dict(), strict=False)
    assert (missing, unexpected) == (["phase_weight"], [])
    for size in SIZES:
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(block(x), conv(x), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        block.phase_weight[:, 0], block.phase_weight[:, 1] = 0, 1
    assert (block(x) - conv(x)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 4}, "into 4 groups"),
        ({"padding": 1, "same": True}, "same padding"),
        ({"stride": (2, 2), "kernel_size": (3, 3, 3)}, "one per spatial axis"),
    ],
)
def test_arguments_that_do_not_fit_are_faults(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPDStdConv(6, 8, **({"kernel_size": 3} | arguments))


def test_an_input_smaller_than_the_window_is_a_fault() -> None:
    with pytest.raises(ValueError, match="smaller than the block's window"):
        SPDStdConv(6, 8, 5)(torch.randn(2, 6, 3, 9))


def test_repr() -> None:
    text = "kernel_size=(3, 3), stride=(2, 2), groups=1, bias=True, eps=1e-06, gain_scale=0.5, same=True"
    assert repr(SPDStdConv(6, 8, 3, gain_scale=0.5, same=True)) == f"SPDStdConv(6, 8, {text})"
    assert "eps=1e-06, gain_scale=0.5" in repr(SPDStdPointwiseConv(6, 8, gain_scale=0.5))
