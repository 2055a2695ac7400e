"""SPDMaxPool against the max pools of torch.nn."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from spdify.blocks import SPDMaxPool

POOLS: dict[int, type[nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d]] = {
    1: nn.MaxPool1d,
    2: nn.MaxPool2d,
    3: nn.MaxPool3d,
}
SIZES = [(9, 12, 11), (10, 11, 9), (12, 13, 10)]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_equals_the_pool(dims: int, *, ceil_mode: bool) -> None:
    torch.manual_seed(0)
    for k, s, p, d in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)):
        if p > k // 2 or (d > 1 and (p or ceil_mode)) or (dims == 3 and k == 5):
            continue
        pool = POOLS[dims](k, s, p, d, ceil_mode=ceil_mode)
        block = SPDMaxPool(3, (k,) * dims, s, p, d, ceil_mode=ceil_mode).double()
        for size in SIZES[:1] if dims == 3 else SIZES:
            x = torch.randn(2, 3, *size[:dims], dtype=torch.float64)
            torch.testing.assert_close(block(x), pool(x), rtol=1e-14, atol=1e-14, msg=f"{k} {s} {p} {d} {size}")


def test_unequal_axes_and_signs() -> None:
    window: tuple[Any, Any, Any] = ((2, 5), (3, 1), (1, 2))
    pool, block = nn.MaxPool2d(*window, ceil_mode=True), SPDMaxPool(3, *window, ceil_mode=True).double()
    for offset in (-10, 0, 10):  # -inf outside must lose also where all is negative
        x = torch.randn(2, 3, 13, 10, dtype=torch.float64) + offset
        torch.testing.assert_close(block(x), pool(x))


def test_gradients_go_to_the_winner() -> None:
    pool, block = nn.MaxPool2d(3, 2, 1), SPDMaxPool(3, 3, 2, 1).double()
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    wanted, found = (torch.autograd.grad(m(x), x, cotangent)[0] for m in (pool, block))
    torch.testing.assert_close(found, wanted)


def test_among_equals_the_gradient_is_not_lost() -> None:
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(SPDMaxPool(1, 2).double()(x).sum(), x)
    assert gradient.sum() == 4
    assert gradient.min() == 0


@pytest.mark.parametrize("rung", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_wrong_weight_is_seen(axis: int, rung: int) -> None:
    pool, block = nn.MaxPool2d(3, 2, 1), SPDMaxPool(3, 3, 2, 1)
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        block.get_parameter(f"tournament.{axis}")[rung, 0, 0] += 0.5
    assert (block(x) - pool(x)).abs().max() > 1e-2


def test_by_hand() -> None:
    block = SPDMaxPool(5, 3, 2, 1)
    assert {name: tuple(w.shape) for name, w in block.named_parameters()} == {
        "tournament.0": (3, 5, 2, 2),
        "tournament.1": (3, 5, 2, 2),
    }
    x = torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(SPDMaxPool(4, 2)(x), nn.MaxPool2d(2)(x))


def test_both_forms_compute_the_same_also_when_trained() -> None:
    torch.manual_seed(0)
    for k, s, p, d in product((1, 2, 3, 5), (1, 2, 3), (0, 1), (1, 2)):
        if p > k // 2:
            continue
        block = SPDMaxPool(3, (k, 3), (s, 2), (p, 1), (d, 1), ceil_mode=True).double()
        with torch.no_grad():
            for weight in block.parameters():
                weight.copy_(torch.randn_like(weight))
        x = torch.randn(2, 3, 12, 11, dtype=torch.float64)
        expected = block(x)
        block.form = "strided"
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_any_memory_format() -> None:
    block, x = SPDMaxPool(4, 3, 2, 1), torch.randn(2, 4, 9, 10)
    expected = block(x)
    last = block.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected)


def test_an_axis_without_taps_and_stride_has_no_weights() -> None:
    block = SPDMaxPool(2, (1, 3), (1, 2))
    assert list(block.state_dict()) == ["tournament.1"]
    x = torch.randn(2, 2, 5, 9)
    torch.testing.assert_close(block(x), nn.MaxPool2d((1, 3), (1, 2))(x))


def test_the_edge_may_be_an_axis_of_one_position() -> None:
    x = torch.randn(2, 3, 1, 9)
    torch.testing.assert_close(SPDMaxPool(3, 3, 2, 1)(x), nn.MaxPool2d(3, 2, 1)(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 3, "padding": 1, "same": True}, "same padding"),
        ({"kernel_size": 3, "padding": -1, "dilation": 2}, "half the kernel"),
        ({"kernel_size": 3, "padding": 2}, "half the kernel"),
        ({"kernel_size": (3, 3), "stride": (2, 2, 2)}, "one per spatial axis"),
    ],
)
def test_arguments_that_do_not_fit_are_faults(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPDMaxPool(4, **arguments)


def test_an_input_smaller_than_the_window_is_a_fault() -> None:
    with pytest.raises(ValueError, match="smaller than the pool's window"):
        SPDMaxPool(4, 3)(torch.randn(2, 4, 2, 9))


def test_repr() -> None:
    assert repr(SPDMaxPool(4, 3, 2, 1)).startswith(
        "SPDMaxPool(\n  4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)\n"
    )


@pytest.mark.parametrize("offset", [-10, 0, 10])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dilated_windows_over_padding(dims: int, offset: int, *, ceil_mode: bool) -> None:
    """The edge may lie between two taps there: the smallest value stands for -inf, also where all are negative."""
    torch.manual_seed(0)
    for k, s, p, d in product((2, 3, 5), (2, 3), (0, 1, 2), (2, 3)):
        if p > k // 2 or (dims == 3 and (k == 5 or d == 3)):
            continue
        pool = POOLS[dims](k, s, p, d, ceil_mode=ceil_mode)
        block = SPDMaxPool(3, (k,) * dims, s, p, d, ceil_mode=ceil_mode).double()
        for size in [(15, 16, 17), (14, 13, 15)][: 1 if dims == 3 else 2]:
            x = torch.randn(2, 3, *size[:dims], dtype=torch.float64) + offset
            expected = pool(x)
            if not expected.isfinite().all():
                with pytest.raises(ValueError, match="wholly in the padding"):
                    block(x)
                continue
            torch.testing.assert_close(block(x), expected, rtol=1e-14, atol=1e-14, msg=f"{k} {s} {p} {d} {size}")


def test_a_dilated_window_without_a_real_tap_is_a_fault() -> None:
    pool, block = nn.MaxPool2d(2, 3, 1, dilation=4, ceil_mode=True), SPDMaxPool(3, 2, 3, 1, 4, ceil_mode=True)
    x = torch.randn(2, 3, 3, 9)
    assert pool(x).isinf().any()
    with pytest.raises(ValueError, match="wholly in the padding"):
        block(x)
    torch.testing.assert_close(block(torch.randn(2, 3, 9, 9)).shape, pool(torch.randn(2, 3, 9, 9)).shape)


def test_the_gradient_of_a_dilated_window_over_padding() -> None:
    torch.manual_seed(0)
    pool, block = nn.MaxPool2d(3, 2, 1, dilation=2), SPDMaxPool(3, 3, 2, 1, 2).double()
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn_like(pool(x))
    wanted, found = (torch.autograd.grad(m(x), x, cotangent)[0] for m in (pool, block))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("offset", [-10, 0, 10])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_same_padding(offset: int, *, ceil_mode: bool) -> None:
    torch.manual_seed(0)
    for k, s, d in product((1, 2, 3, 5), (2, 3), (1, 2)):
        pool = MaxPool2dSame(k, s, dilation=d, ceil_mode=ceil_mode)
        block = SPDMaxPool(3, (k, k), s, 0, d, ceil_mode=ceil_mode, same=True).double()
        for size in SIZES:
            x = torch.randn(2, 3, *size[:2], dtype=torch.float64) + offset
            torch.testing.assert_close(block(x), pool(x), rtol=1e-14, atol=1e-14, msg=f"{k} {s} {d} {size}")
    assert "same=True" in repr(block)


def test_without_memory_its_size_costs_nothing() -> None:
    with torch.device("meta"):
        block = SPDMaxPool(2**24, 64, 2)
    assert all(weight.is_meta and weight.numel() > 2**30 for weight in block.parameters())
