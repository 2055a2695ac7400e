"""SPDPointwiseConv against the strided 1×1 convolution that it equals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from spdify.blocks import SPDPointwiseConv
from spdify.blocks.phases import split_axis

if TYPE_CHECKING:
    from spdify.blocks.spd_conv import Form

CONVS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
FORMS: list[Form] = ["space_to_depth", "strided"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dims", "stride", "padding", "groups"),
    [(2, 2, 0, 1), (2, 3, 1, 1), (2, (1, 2), 0, 2), (2, (2, 4), (1, 3), 1), (1, 2, 0, 4), (1, 5, 2, 1), (3, 2, 1, 2)],
)
@pytest.mark.parametrize("mixed", [1, 2, 4])
def test_equals_the_strided_convolution(
    dims: int,
    stride: Any,  # noqa: ANN401 - as torch.nn takes it
    padding: Any,  # noqa: ANN401
    groups: int,
    mixed: int,
    form: Form,
) -> None:
    torch.manual_seed(0)
    conv = CONVS[dims](4, 8, 1, stride, padding, groups=groups).double()
    axes = [split_axis(1, s, int(p), 1) for s, p in zip(conv.stride, conv.padding, strict=True)]
    block = SPDPointwiseConv(
        4,
        8,
        [axis.scale for axis in axes],
        [axis.taps[0][1] for axis in axes],
        [axis.padding for axis in axes],
        groups=groups,
        mixed=mixed,
        form=form,
    ).double()
    block.load_state_dict(conv.state_dict(), strict=False)
    for size in [(9, 12, 7), (8, 11, 10), (7, 7, 9)]:
        x = torch.randn(2, 4, *size[:dims], dtype=torch.float64, requires_grad=True)
        expected, actual = conv(x), block(x)
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
        cotangent = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, [x, *conv.parameters()], cotangent)
        found = torch.autograd.grad(actual, [x, block.weight, block.get_parameter("bias")], cotangent)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("mixed", [1, 3])
def test_the_phase_weight_learns(mixed: int) -> None:
    block = SPDPointwiseConv(3, 4, mixed=mixed)
    block(torch.randn(2, 3, 8, 8)).sum().backward()
    gradient = block.phase_weight.grad
    assert gradient is not None
    assert gradient.abs().min() > 0


def test_by_hand() -> None:
    block = SPDPointwiseConv(8, 16)
    assert list(block.state_dict()) == ["weight", "bias", "phase_weight"]
    assert sum(p.numel() for p in block.parameters()) == 8 * 16 + 16 + 4 * 8
    assert block(torch.randn(2, 8, 9, 12)).shape == (2, 16, 5, 6)
    last = SPDPointwiseConv(1, 1, 2, 1, bias=False)
    x = torch.randn(1, 1, 4, 6)
    torch.testing.assert_close(last(x), x[:, :, 1::2, 1::2] * last.weight)


def test_trained_phases_mix_with_those_of_their_group_alone() -> None:
    torch.manual_seed(0)
    block = SPDPointwiseConv(6, 6, mixed=3, bias=False)
    nn.init.normal_(block.phase_weight)
    with torch.no_grad():
        block.weight.copy_(torch.eye(6)[:, :, None, None])
    x = torch.randn(1, 6, 4, 4)
    moved = block(x + torch.eye(6)[4][None, :, None, None]) - block(x)
    assert [bool(change.abs().max() > 1e-6) for change in moved[0]] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups"),
        ({"mixed": 3}, "cannot mix 3 channels"),
        ({"mixed": 0}, "cannot mix 0 channels"),
        ({"phase": (0, 2)}, "phase"),
        ({"phase": (0, 0, 0)}, "one per spatial axis"),
        ({"padding": [(1, 0), (0, 0)]}, "multiple of the scale"),
    ],
)
def test_arguments_that_do_not_fit_are_faults(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPDPointwiseConv(4, 8, **arguments)


def test_an_input_smaller_than_the_window_is_a_fault() -> None:
    block = SPDPointwiseConv(4, 8, 2, padding=[(0, 0), (0, 0)])
    with pytest.raises(ValueError, match="smaller than the block's window"):
        block(torch.randn(2, 4, 1, 8))


def test_repr() -> None:
    text = "SPDPointwiseConv(4, 8, scale=(2, 2), padding=((0, 1), (0, 1)), groups=1, bias=True)"
    assert repr(SPDPointwiseConv(4, 8)) == text
    assert repr(SPDPointwiseConv(4, 8, mixed=2)) == f"{text[:-1]}, mixed=2)"
