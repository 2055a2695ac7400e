"""Blocks in the form that is deployed: the same numbers, with trained weights and with those of the start."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import spdify.blocks as b
from spdify.blocks.fused_max_pool import FusedMaxPool
from spdify.blocks.fusing import _FORMS, NO_OTHER_FORM, Subsample, fused
from spdify.blocks.padded_conv import PaddedConv2d, strided_convolution
from spdify.blocks.phases import scatter_taps, split_axis

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = [(13, 16), (14, 11)]


def trained(block: nn.Module) -> nn.Module:
    """Give a block in float64 weights that training may have left."""
    torch.manual_seed(0)
    block = block.double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return block


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "paper": lambda: b.SPDConv(6, 4),
    "minimal": lambda: b.SPDConv(6, 4, 2, 2, [(2, 1), (2, 1)], bias=False),
    "depthwise": lambda: b.SPDConv(6, 6, 2, 2, [(2, 1), (2, 1)], groups=6),
    "grouped": lambda: b.SPDConv(6, 4, (3, 2), (3, 2), [(3, 2), (2, 1)], groups=2),
    "cropped": lambda: b.SPDConv(6, 4, 2, 2, [(2, -1), (0, -1)]),
    "reflect": lambda: b.SPDConv(6, 4, 2, 2, [(0, 1), (0, 1)], margin=(1, 1), padding_mode="reflect"),
    "circular": lambda: b.SPDConv(6, 4, 2, 2, [(0, 0), (0, 0)], margin=(1, 2), padding_mode="circular"),
    "same": lambda: b.SPDConv(6, 4, 2, 2, [(0, 1), (0, 1)], margin=(3, 3), padding_mode="same"),
    "ceil": lambda: b.SPDConv(6, 4, 1, 2, [(0, 0), (0, 0)], margin=(2, 2), padding_mode="ceil"),
    "pointwise": lambda: b.SPDPointwiseConv(6, 4),
    "pointwise groups": lambda: b.SPDPointwiseConv(6, 4, (2, 3), (1, 2), groups=2, bias=False),
    "pointwise mixed": lambda: b.SPDPointwiseConv(6, 4, mixed=3),
    "pointwise mixed across groups": lambda: b.SPDPointwiseConv(6, 4, (2, 3), (1, 2), groups=2, mixed=2, bias=False),
    "std pointwise mixed": lambda: b.SPDStdPointwiseConv(6, 4, gain_scale=0.7, mixed=6),
    "std": lambda: b.SPDStdConv(6, 4, 3, 2, 1, gain_scale=1.5),
    "std same": lambda: b.SPDStdConv(6, 4, 3, 2, groups=2, same=True),
    "std pointwise": lambda: b.SPDStdPointwiseConv(6, 4, gain_scale=0.7),
    "average": lambda: b.SPDAvgPool(6, 2),
    "average padded": lambda: b.SPDAvgPool(6, 3, 2, 1),
    "average divided": lambda: b.SPDAvgPool(6, 3, 2, 1, ceil_mode=True, divisor_override=5),
    "average corrected": lambda: b.SPDAvgPool(6, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average same": lambda: b.SPDAvgPool(6, 3, 2, same=True),
    "maximum": lambda: b.SPDMaxPool(6, 3, 2, 1),
    "maximum ceil": lambda: b.SPDMaxPool(6, 3, 2, 0, ceil_mode=True),
    "maximum of rows": lambda: b.SPDMaxPool(6, (2, 1), (2, 1)),
    "maximum cropped": lambda: b.SPDMaxPool(6, 2, 3),
    "maximum dilated": lambda: b.SPDMaxPool(6, 3, 2, 1, 2),
    "maximum same": lambda: b.SPDMaxPool(6, 3, 2, same=True),
    "slice": lambda: b.SPDSubsample(6, (2, 2), (0, 1), (2, 3)),
    "at every position": lambda: b.ConvSPD(6, 4, 3, 2, 1, reduce=True),
    "at every position, dilated": lambda: b.ConvSPD(6, 4, 3, 2, 2, 2, padding_mode="reflect", reduce=True),
    "at every position, std": lambda: b.StdConvSPD(6, 4, 3, 2, padding_mode="same", reduce=True, gain_scale=1.2),
}


def same(one: nn.Module, other: nn.Module, sizes: list[tuple[int, ...]] = SIZES) -> None:
    torch.manual_seed(1)
    for size in sizes:
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(other(x), one(x), rtol=1e-11, atol=1e-11)
        if not isinstance(one, b.SPDSubsample):  # which takes a batch only
            torch.testing.assert_close(other(x[0]), one(x[0]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", BLOCKS)
def test_trained_weights_fuse(name: str) -> None:
    block = trained(BLOCKS[name]())
    state = {key: value.clone() for key, value in block.state_dict().items()}
    form = fused(block)
    if name.startswith("at every"):  # its reduction was trained too: no smaller convolution is the same at the edges
        assert form is None
        return
    assert form is not None
    same(block, form)
    assert all(torch.equal(value, block.state_dict()[key]) for key, value in state.items())


@pytest.mark.parametrize("name", BLOCKS)
def test_weights_of_the_start_fuse(name: str) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name]().double().eval()
    form = fused(block)
    assert form is not None
    same(block, form)


@pytest.mark.parametrize("window", list(product((1, 2, 3, 5, 7), (2, 3), (0, 1, 2), (1, 2), (1, 6))))
def test_a_convolution_that_nobody_trained_folds_back_to_itself(window: tuple[int, int, int, int, int]) -> None:
    torch.manual_seed(0)
    k, s, p, d, g = window
    conv = nn.Conv2d(6, 6, k, s, p, d, groups=g)
    axis = split_axis(k, s, p, d)
    block = b.SPDConv(6, 6, axis.kernel, s, [axis.padding] * 2, groups=g)
    block.load_state_dict({"weight": scatter_taps(conv.weight, [axis] * 2), "bias": conv.bias})
    form = fused(block)
    assert form is not None
    assert type(form) is nn.Conv2d
    assert torch.equal(form.weight, conv.weight)
    assert (form.stride, form.padding, form.groups) == (conv.stride, conv.padding, conv.groups)
    assert form.dilation == (conv.dilation if k > 1 else (1, 1))


@pytest.mark.parametrize(
    ("block", "original"),
    [
        (b.SPDPointwiseConv(6, 4), "Conv2d(6, 4, kernel_size=(1, 1), stride=(2, 2))"),
        (b.SPDPointwiseConv(6, 4, mixed=2), "Conv2d(6, 4, kernel_size=(1, 1), stride=(2, 2))"),
        (b.SPDMaxPool(6, 3, 2, 1, ceil_mode=True), "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dila"),
        (b.SPDMaxPool(6, 3, 2, 1, 2), "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2)"),
        (b.SPDAvgPool(6, 3, 2, 1), "AvgPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))"),
        (b.SPDSubsample(6, (2, 2), (0, 1), (2, 3)), "Subsample(starts={2: 0, 3: 1}, steps={2: 2, 3: 2})"),
        (b.ConvSPD(6, 4, 3, 2, 1, reduce=True), "Conv2d(6, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))"),
    ],
    ids=lambda value: value.split("(")[0] if isinstance(value, str) else "",
)
def test_what_nobody_trained_is_what_it_was(block: nn.Module, original: str) -> None:
    assert repr(fused(block)).startswith(original)


def test_a_trained_convolution_is_padded_on_each_side() -> None:
    form = fused(trained(BLOCKS["minimal"]()))
    assert isinstance(form, PaddedConv2d)
    assert repr(form) == "PaddedConv2d(6, 4, kernel_size=(4, 4), stride=(2, 2), bias=False, pads=(2, 1, 2, 1))"
    assert (form.in_channels, form.weight.shape) == (6, (4, 6, 4, 4))


def test_trained_pools_are_convolutions() -> None:
    assert isinstance(fused(trained(b.SPDMaxPool(6, 3, 2, 1))), FusedMaxPool)
    assert isinstance(fused(trained(b.SPDAvgPool(6, 2))), nn.Conv2d)


def test_one_trained_weight_is_enough() -> None:
    """A fold that goes by anything but the weights would lose it."""
    for make in (BLOCKS[name] for name in ("maximum", "average", "slice", "pointwise", "pointwise mixed")):
        block: Any = make().double()
        with torch.no_grad():
            next(iter(block.parameters())).flatten()[-1] += 1e-3
        form = fused(block)
        assert form is not None
        same(block, form)


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions(dims: int) -> None:
    size: list[tuple[int, ...]] = [(9, 8, 7)[:dims]]
    for block in (
        b.SPDConv(6, 4, 2, (2,) * dims, [(2, 1)] * dims),
        b.SPDAvgPool(6, (3,) * dims, 2, 1),
        b.SPDMaxPool(6, (3,) * dims, 2, 1),
        b.SPDPointwiseConv(6, 4, (2,) * dims),
    ):
        for variant in (block.double(), trained(block)):
            form = fused(variant)
            assert form is not None
            same(variant, form, size)


def test_blocks_without_another_form() -> None:
    for block in (b.SpaceToDepth(), b.ConvSPD(6, 4), b.SPDPerChannels({6: nn.Identity()})):
        assert fused(block) is None
        assert type(block) in NO_OTHER_FORM or isinstance(block, b.ConvSPD)
    with pytest.raises(KeyError, match="Linear"):
        fused(nn.Linear(2, 2))


def test_every_block_has_a_form_or_a_reason() -> None:
    kinds = [kind for name in b.__all__ if isinstance(kind := getattr(b, name), type)]
    assert {kind for kind in kinds if kind not in _FORMS} == set(NO_OTHER_FORM)


def test_a_crop_larger_than_the_map_comes_after_the_padding() -> None:
    block = b.SPDConv(3, 8, 2, 2, [(2, 1), (2, 1)]).double()
    with torch.no_grad():
        block.weight.zero_()
        block.weight[:, :, 0, 0] = 1.0
    form = fused(block)
    assert form is not None
    for size in ((1, 1), (2, 1), (3, 5)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(form(x), block(x))


def test_zeros_everywhere_leave_one_tap() -> None:
    conv = strided_convolution(torch.zeros(4, 6, 3, 3), None, (2, 2), [(1, 1), (1, 1)])
    x = torch.randn(2, 6, 7, 8)
    assert torch.equal(conv(x), torch.zeros(2, 4, 4, 4))


def test_a_slice_of_another_axis_order() -> None:
    block = b.SPDSubsample(6, (2, 3), (1, 0), (1, 2)).double()
    x = torch.randn(2, 9, 8, 6, dtype=torch.float64)
    form = fused(block)
    assert isinstance(form, Subsample)
    torch.testing.assert_close(form(x), block(x))
