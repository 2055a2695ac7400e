"""SPDAvgPool against the average pools of torch.nn."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import timm.layers
import torch
from torch import nn

from spdify.blocks import SPDAvgPool

if TYPE_CHECKING:
    from spdify.blocks.spd_conv import Form

FORMS: list[Form] = ["space_to_depth", "strided"]
SIZES = [(9, 12, 11), (10, 11, 9), (12, 9, 10)]


def pool_of(dims: int, kernel: Any, stride: Any, padding: Any, **flags: Any) -> nn.Module:  # noqa: ANN401 - torch.nn's
    if dims == 1:
        flags.pop("divisor_override")
        return nn.AvgPool1d(kernel, stride, padding, **flags)
    return {2: nn.AvgPool2d, 3: nn.AvgPool3d}[dims](kernel, stride, padding, **flags)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("dims", "divisor_override"), [(1, None), (2, None), (2, 7), (3, None), (3, 7)])
def test_equals_the_pool(dims: int, *, ceil_mode: bool, count_include_pad: bool, divisor_override: int | None) -> None:
    flags: dict[str, Any] = {
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor_override,
    }
    for k, s, p in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        if p > k // 2:
            continue
        pool = pool_of(dims, k, s, p, **flags)
        blocks = [SPDAvgPool(3, (k,) * dims, s, p, form=form, **flags).double() for form in FORMS]
        for block in blocks:
            block.reset_parameters()
        for size in SIZES[:1] if dims == 3 else SIZES:
            x = torch.randn(2, 3, *size[:dims], dtype=torch.float64)
            for block in blocks:
                torch.testing.assert_close(block(x), pool(x), rtol=1e-12, atol=1e-12, msg=f"{k} {s} {p} {size}")


@pytest.mark.parametrize("include", [False, True])
def test_unequal_axes(*, include: bool) -> None:
    window: tuple[Any, Any, Any] = ((2, 5), (3, 2), (1, 2))
    pool = nn.AvgPool2d(*window, ceil_mode=True, count_include_pad=include)
    block = SPDAvgPool(3, *window, ceil_mode=True, count_include_pad=include).double()
    block.reset_parameters()
    x = torch.randn(2, 3, 13, 10, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(block(x), pool(x))
    cotangent = torch.randn_like(pool(x))
    torch.testing.assert_close(torch.autograd.grad(block(x), x, cotangent), torch.autograd.grad(pool(x), x, cotangent))


def test_a_wrong_divisor_is_seen() -> None:
    pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    block = SPDAvgPool(3, 3, 2, 1)
    x = torch.randn(2, 3, 9, 9) + 1
    assert (block(x) - pool(x)).abs().max() > 1e-2


def test_by_hand() -> None:
    block = SPDAvgPool(4, 2)
    assert list(block.state_dict()) == ["weight"]
    assert block.weight.shape == (4, 4, 1, 1)
    assert torch.equal(block.weight, torch.full((4, 4, 1, 1), 0.25))
    x = torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(block(x), nn.AvgPool2d(2)(x))


def test_padding_above_half_the_kernel_is_a_fault() -> None:
    with pytest.raises(ValueError, match="half the kernel"):
        SPDAvgPool(4, 2, 2, 2)


def test_an_input_smaller_than_the_window_is_a_fault() -> None:
    with pytest.raises(ValueError, match="smaller than the block's window"):
        SPDAvgPool(4, 3)(torch.randn(2, 4, 2, 9))


def test_repr() -> None:
    text = "SPDAvgPool(4, kernel_size=(3, 3), stride=(2, 2), padding=((2, 1), (2, 1)))"
    assert repr(SPDAvgPool(4, 3, 2, 1)) == text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_same_padding(form: Form, *, ceil_mode: bool, count_include_pad: bool) -> None:
    flags = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    for k, s in product((1, 2, 3, 4), (2, 3)):
        pool = timm.layers.AvgPool2dSame(k, s, **flags)
        block = SPDAvgPool(3, (k, k), s, same=True, form=form, **flags).double()
        block.reset_parameters()
        for size in SIZES:
            x = torch.randn(2, 3, *size[:2], dtype=torch.float64)
            torch.testing.assert_close(block(x), pool(x), rtol=1e-12, atol=1e-12, msg=f"{k} {s} {size}")
    assert "same=True" in repr(block)


def test_same_padding_beside_another_is_a_fault() -> None:
    with pytest.raises(ValueError, match="same padding"):
        SPDAvgPool(3, 3, 2, 1, same=True)


def test_without_memory_its_size_costs_nothing() -> None:
    with torch.device("meta"):
        block = SPDAvgPool(2**24, 64, 2)
    assert all(weight.is_meta and weight.numel() > 2**30 for weight in block.parameters())
