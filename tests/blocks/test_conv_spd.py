"""ConvSPD: phase 0 of a convolution with stride 1 is the strided convolution."""

from __future__ import annotations

from typing import Any

import pytest
import timm.layers
import torch
from torch import nn

from spdify.blocks import ConvSPD
from spdify.blocks.conv_spd import first_phase

CONVS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = [(9, 12, 11), (10, 11, 9), (12, 9, 10)]

# kernel, stride, padding, dilation, groups of 4 → 6 channels
WINDOWS: list[tuple[Any, Any, Any, Any, int]] = [
    (3, 2, 1, 1, 1),
    (3, 2, 1, 1, 2),
    (1, 2, 0, 1, 1),
    (5, 3, 2, 1, 2),
    (2, 2, 0, 1, 1),
    (3, 4, 1, 1, 1),  # stride above kernel
    (3, 2, 2, 2, 1),
    (2, 3, 5, 1, 1),  # padding above kernel
]


def pair(conv: Any, **flags: Any) -> ConvSPD:  # noqa: ANN401 - any of three classes
    """Write a convolution of torch.nn as a ConvSPD."""
    block = ConvSPD(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
        groups=conv.groups, bias=conv.bias is not None, padding_mode=conv.padding_mode, **flags,
    )  # fmt: skip
    block.load_state_dict(conv.state_dict(), strict=not flags)
    return block.double()


def phases(block: ConvSPD, x: torch.Tensor, phase: int) -> torch.Tensor:
    copies = torch.tensor(block.stride).prod()
    return block(x)[:, phase::copies]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("k", "s", "p", "d", "groups"), WINDOWS)
def test_phase_zero_is_the_strided_convolution(dims: int, k: int, s: int, p: int, d: int, groups: int) -> None:
    conv = CONVS[dims](4, 6, k, s, p, d, groups=groups).double()
    block, reduced = pair(conv), pair(conv, reduce=True)
    for size in SIZES[:1] if dims == 3 else SIZES:
        x = torch.randn(2, 4, *size[:dims], dtype=torch.float64)
        torch.testing.assert_close(phases(block, x, 0), conv(x))
        torch.testing.assert_close(reduced(x), conv(x))
        assert block(x).shape == (2, 6 * s**dims, *conv(x).shape[2:])


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_by_another_mode(mode: str) -> None:
    conv = nn.Conv2d(4, 6, 3, (2, 3), (1, 2), padding_mode=mode).double()
    block = pair(conv)
    for size in SIZES:
        x = torch.randn(2, 4, *size[:2], dtype=torch.float64)
        torch.testing.assert_close(phases(block, x, 0), conv(x))


@pytest.mark.parametrize(("k", "s", "d"), [(3, 2, 1), (4, 3, 1), (1, 2, 1), (2, 5, 1), (3, 2, 3)])
def test_same_padding_is_that_of_the_stride(k: int, s: int, d: int) -> None:
    conv = timm.layers.Conv2dSame(4, 6, k, s, dilation=d)
    block = ConvSPD(4, 6, k, s, dilation=d, padding_mode="same")
    block.load_state_dict(conv.state_dict())
    for size in SIZES:
        x = torch.randn(2, 4, *size[:2])
        torch.testing.assert_close(phases(block, x, 0), conv(x))


def test_the_other_phases_are_what_the_strided_convolution_leaves_out() -> None:
    conv = nn.Conv2d(4, 6, 3, (2, 3), 1).double()
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    full = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    full = nn.functional.pad(full, (0, 1, 0, 1))
    y = pair(conv)(x)
    for c in range(6):
        for r in range(6):
            torch.testing.assert_close(y[:, 6 * c + r], full[:, c, r // 3 :: 2, r % 3 :: 3])


def test_a_wrong_phase_is_seen() -> None:
    conv = nn.Conv2d(4, 6, 3, 2, 1).double()
    x = torch.randn(2, 4, 9, 12, dtype=torch.float64)
    assert (phases(pair(conv), x, 1) - conv(x)).abs().max() > 1e-2


def test_gradients_of_the_reduced_form() -> None:
    conv = nn.Conv2d(4, 6, 3, 2, 1, groups=2).double()
    block = pair(conv, reduce=True)
    x = torch.randn(2, 4, 9, 12, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn_like(conv(x))
    wanted = torch.autograd.grad(conv(x), [x, *conv.parameters()], cotangent)
    assert block.reduction_weight is not None
    assert block.bias is not None
    *found, extra = torch.autograd.grad(block(x), [x, block.weight, block.bias, block.reduction_weight], cotangent)
    torch.testing.assert_close(found, list(wanted))
    assert extra.abs().min() > 0, "all phases learn"


def test_the_reduction_stays_in_its_group() -> None:
    weight = first_phase(6, 2, (2, 3))
    assert weight.shape == (6, 18, 1, 1)
    assert weight.sum() == 6
    assert [int(row.flatten().argmax()) for row in weight] == [0, 6, 12, 0, 6, 12]


def test_by_hand() -> None:
    block = ConvSPD(4, 8)
    assert list(block.state_dict()) == ["weight", "bias"]
    assert block.weight.shape == (8, 4, 3, 3)
    assert block(torch.randn(2, 4, 9, 12)).shape == (2, 32, 4, 5)
    assert list(ConvSPD(4, 8, bias=False, reduce=True).state_dict()) == ["weight", "reduction_weight"]


def test_weights_are_drawn_as_those_of_the_convolution() -> None:
    torch.manual_seed(3)
    block = ConvSPD(4, 8, reduce=True)
    torch.manual_seed(3)
    conv = nn.Conv2d(4, 8, 3)
    assert torch.equal(block.weight, conv.weight)
    assert block.bias is not None
    assert conv.bias is not None
    assert torch.equal(block.bias, conv.bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups"),
        ({"padding": 1, "padding_mode": "same"}, "same padding"),
        ({"kernel_size": (3, 3, 3)}, "one per spatial axis"),
    ],
)
def test_arguments_that_do_not_fit_are_faults(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvSPD(4, 8, **arguments)


def test_repr_names_what_is_not_usual() -> None:
    assert repr(ConvSPD(4, 8)) == "ConvSPD(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(0, 0))"
    text = repr(ConvSPD(4, 8, 3, 2, 1, 2, groups=2, bias=False, padding_mode="reflect", reduce=True))
    assert text.endswith("dilation=(2, 2), groups=2, bias=False, margin=(1, 1), padding_mode='reflect', reduce=True)")
