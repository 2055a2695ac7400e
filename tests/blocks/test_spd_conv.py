"""SPDConv against the strided convolution that it equals."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
import timm.layers
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import SPDConv, space_to_depth
from spdify.blocks.phases import scatter_taps, split_axis
from spdify.blocks.spd_conv import Form, strided_weight

CONVS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
FORMS: list[Form] = ["space_to_depth", "strided"]
Axes: TypeAlias = tuple[int, int, int]
SIZES = [(23, 24, 9), (25, 26, 10), (27, 29, 11), (16, 17, 12)]

# kernel, stride, padding, dilation, groups of 8 → 16 channels
GEOMETRIES = [
    (3, 2, 1, 1, 1),
    (3, 2, 1, 1, 8),
    (3, 2, 1, 1, 2),
    (1, 2, 0, 1, 1),
    (1, 3, 1, 1, 1),
    (5, 2, 2, 1, 8),
    (7, 2, 3, 1, 1),
    (2, 2, 0, 1, 1),
    (4, 4, 0, 1, 1),
    (7, 4, 3, 1, 2),
    (7, 4, 2, 1, 1),
    (3, 4, 1, 1, 8),  # stride above kernel
    (1, 5, 0, 1, 1),
    (3, 2, 2, 2, 1),  # dilation with stride
    (3, 3, 4, 3, 4),
    (3, 2, 0, 1, 4),
    (11, 4, 2, 1, 1),
    (3, 2, 3, 1, 1),  # padding as large as the kernel
    (2, 3, 5, 1, 1),  # padding above the kernel
    (3, 1, 1, 1, 1),
]


def block_of(conv: nn.Module, *, odd: bool, form: Form) -> SPDConv:
    """Write a convolution of torch.nn as an SPDConv."""
    assert isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    numbers = zip(conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    axes = [split_axis(k, s, int(p), d, odd=odd) for k, s, p, d in numbers]
    block = SPDConv(
        conv.in_channels,
        conv.out_channels,
        [axis.kernel for axis in axes],
        [axis.scale for axis in axes],
        [axis.padding for axis in axes],
        groups=conv.groups,
        bias=conv.bias is not None,
        form=form,
    ).double()
    with torch.no_grad():
        block.weight.copy_(scatter_taps(conv.weight, axes))
        if conv.bias is not None and block.bias is not None:
            block.bias.copy_(conv.bias)
    return block


@pytest.mark.parametrize(("dims", "scale"), [(1, (3,)), (2, (2, 2)), (2, (2, 3)), (3, (2, 2, 2)), (3, (1, 2, 3))])
def test_phases_lie_where_the_docstring_says(dims: int, scale: tuple[int, ...]) -> None:
    x = torch.arange(2 * 5 * 12**dims).reshape(2, 5, *[12] * dims)
    y = space_to_depth(x, scale)
    assert y.shape == (2, 5 * torch.tensor(scale).prod(), *(12 // s for s in scale))
    for index in range(y.shape[1]):
        channel, phase = index, []
        for s in reversed(scale):
            channel, r = divmod(channel, s)
            phase.insert(0, r)
        picked = x[(slice(None), channel, *(slice(r, None, s) for r, s in zip(phase, scale, strict=True)))]
        assert torch.equal(y[:, index], picked)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_order_is_that_of_pixel_unshuffle(scale: int) -> None:
    x = torch.randn(2, 3, 12, 24)
    assert torch.equal(space_to_depth(x, (scale, scale)), F.pixel_unshuffle(x, scale))
    general = space_to_depth(x.unsqueeze(2), (1, scale, scale)).squeeze(2)
    assert torch.equal(general, F.pixel_unshuffle(x, scale))


def test_scale_one_changes_nothing() -> None:
    x = torch.randn(2, 3, 5)
    assert space_to_depth(x, (1,)) is x


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_the_strided_convolution(geometry: tuple[int, int, int, int, int], *, odd: bool, form: Form) -> None:
    k, s, p, d, g = geometry
    torch.manual_seed(0)
    for dims in (1, 2):
        conv = CONVS[dims](8, 16, k, s, p, d, g).double()
        block = block_of(conv, odd=odd, form=form)
        for size in SIZES:
            x = torch.randn(2, 8, *size[:dims], dtype=torch.float64)
            torch.testing.assert_close(block(x), conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1),
        ((3, 7, 7), (1, 2, 2), (1, 3, 3), (1, 1, 1), 1),
        ((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1), 4),
        ((3, 1, 2), (2, 1, 3), (2, 0, 1), (2, 1, 1), 2),
    ],
)
def test_equals_the_strided_convolution_in_3d(
    kernel: Axes, stride: Axes, padding: Axes, dilation: Axes, groups: int, form: Form
) -> None:
    conv = nn.Conv3d(4, 8, kernel, stride, padding, dilation, groups, bias=False).double()
    for odd in (False, True):
        block = block_of(conv, odd=odd, form=form)
        for size in [(7, 10, 11), (8, 13, 12)]:
            x = torch.randn(2, 4, *size, dtype=torch.float64)
            torch.testing.assert_close(block(x), conv(x), rtol=1e-12, atol=1e-12)


def test_odd_adds_no_taps_along_an_axis_without_stride() -> None:
    block = block_of(nn.Conv3d(4, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), odd=True, form="space_to_depth")
    assert block.kernel_size == (1, 3, 3)


def test_a_misplaced_tap_is_seen() -> None:
    conv = nn.Conv2d(8, 16, 3, 2, 1).double()
    block = block_of(conv, odd=False, form="space_to_depth")
    with torch.no_grad():
        block.weight.copy_(block.weight.roll(1, dims=1))
    x = torch.randn(2, 8, 9, 11, dtype=torch.float64)
    assert (block(x) - conv(x)).abs().max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_strided_convolution(form: Form) -> None:
    conv = nn.Conv2d(4, 6, 3, 2, 1, groups=2).double()
    block = block_of(conv, odd=False, form=form)
    x = torch.randn(2, 4, 9, 12, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 6, 5, 6, dtype=torch.float64)
    dx, dw, db = torch.autograd.grad(conv(x), [x, conv.weight, conv.bias], cotangent)
    dx2, dw2, db2 = torch.autograd.grad(block(x), [x, block.weight, block.bias], cotangent)
    torch.testing.assert_close(dx2, dx)
    torch.testing.assert_close(db2, db)
    axes = [split_axis(3, 2, 1, 1)] * 2
    old_taps = scatter_taps(torch.ones_like(dw), axes) != 0
    torch.testing.assert_close(dw2[old_taps], scatter_taps(dw, axes)[old_taps])
    assert dw2[~old_taps].abs().min() > 0, "the new taps learn too"


def test_the_way_back_is_one_strided_convolution() -> None:
    block = SPDConv(4, 6, 3, (2, 3), groups=2).double()
    weight = strided_weight(block.weight, block.scale)
    assert weight.shape == (6, 2, 6, 9)
    x = torch.randn(2, 4, 12, 18, dtype=torch.float64)
    expected = F.conv2d(F.pad(x, (3, 5, 2, 3)), weight, block.bias, stride=(2, 3), groups=2)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_margin_is_padded_by_its_mode(mode: str, dims: int) -> None:
    conv = CONVS[dims](2, 3, 3, 2, 2, padding_mode=mode).double()
    axes = [split_axis(3, 2, 0, 1)] * dims
    kernel, scale, padding = zip(*((a.kernel, a.scale, a.padding) for a in axes), strict=True)
    block = SPDConv(2, 3, kernel, scale, padding, margin=(2,) * dims, padding_mode=mode).double()
    block.load_state_dict({"weight": scatter_taps(conv.weight, axes), "bias": conv.bias})
    x = torch.randn(2, 2, *(7, 8, 5)[:dims], dtype=torch.float64)
    torch.testing.assert_close(block(x), conv(x))
    torch.testing.assert_close(block(x[0]), conv(x)[0])


def test_by_hand() -> None:
    block = SPDConv(8, 16)
    assert block.weight.shape == (16, 32, 3, 3)
    assert list(block.state_dict()) == ["weight", "bias"]
    for n in (14, 15):
        assert block(torch.randn(2, 8, n, n)).shape == (2, 16, -(-n // 2), -(-n // 2))
    assert list(SPDConv(8, 16, bias=False).state_dict()) == ["weight"]
    assert SPDConv(2, 4, 1, (2, 2, 2))(torch.randn(1, 2, 6, 7, 8)).shape == (1, 4, 3, 4, 4)


def test_weights_are_drawn_as_those_of_the_equal_convolution_of_stride_one() -> None:
    torch.manual_seed(3)
    block = SPDConv(8, 16)
    torch.manual_seed(3)
    conv = nn.Conv2d(32, 16, 3)
    assert torch.equal(block.weight, conv.weight)
    assert block.bias is not None
    assert conv.bias is not None
    assert torch.equal(block.bias, conv.bias)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(4, 9), (9, 4), (1, 1)])
def test_an_input_smaller_than_the_window_is_a_fault(size: tuple[int, int], form: Form) -> None:
    block = SPDConv(2, 3, 3, 2, [(0, 1), (0, 1)], form=form)
    with pytest.raises(ValueError, match="smaller than the block's window"):
        block(torch.randn(2, 2, *size))
    assert block(torch.randn(2, 2, 5, 5)).shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups"),
        ({"padding": [(1, 0), (2, 0)]}, "multiple of the scale"),
        ({"padding": [(-2, 0), (2, 0)]}, "multiple of the scale"),
        ({"padding": [(2, 0)]}, "multiple of the scale"),
        ({"kernel_size": (3, 3, 3)}, "one per spatial axis"),
        ({"margin": (1, 1)}, "padding_mode"),
        ({"padding_mode": "reflect"}, "padding_mode"),
        ({"margin": (1,), "padding_mode": "reflect"}, "one entry per axis"),
    ],
)
def test_arguments_that_do_not_fit_are_faults(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPDConv(4, 8, **arguments)


def test_repr_names_what_is_not_usual() -> None:
    assert repr(SPDConv(4, 8)) == "SPDConv(4, 8, kernel_size=(3, 3), scale=(2, 2), padding=((2, 3), (2, 3)))"
    text = repr(SPDConv(4, 8, 1, groups=2, bias=False, margin=(1, 1), padding_mode="reflect", form="strided"))
    assert text.endswith("groups=2, bias=False, margin=(1, 1), padding_mode='reflect', form='strided')")


@pytest.mark.parametrize("form", ["space_to_depth", "strided"])
@pytest.mark.parametrize(("k", "s", "d"), [(3, 2, 1), (4, 3, 1), (1, 2, 1), (2, 5, 1), (3, 2, 3), (7, 4, 1)])
def test_same_padding(k: int, s: int, d: int, form: Form) -> None:
    conv = timm.layers.Conv2dSame(4, 6, k, s, dilation=d).double()
    axes = [split_axis(k, s, 0, d)] * 2
    kernel, scale, padding = ([getattr(a, name) for a in axes] for name in ("kernel", "scale", "padding"))
    extent = (d * (k - 1) + 1,) * 2
    block = SPDConv(4, 6, kernel, scale, padding, margin=extent, padding_mode="same", form=form).double()
    block.load_state_dict({"weight": scatter_taps(conv.weight, axes), "bias": conv.bias})
    for size in ((9, 12), (10, 11), (13, 9)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(block(x), conv(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(block(x[0]), conv(x)[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_last_block_is_filled_up_with_the_edge(form: Form) -> None:
    block = SPDConv(4, 6, 1, (2, 3), margin=(2, 3), padding_mode="ceil", form=form)
    for size in ((9, 12), (10, 11), (10, 12)):
        x = torch.randn(2, 4, *size)
        whole = F.pad(x, (0, -size[1] % 3, 0, -size[0] % 2), mode="replicate")
        torch.testing.assert_close(block(x), block(whole))
        torch.testing.assert_close(block(x[0]), block(x)[0])
