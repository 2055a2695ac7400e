"""SPD-Conv for a strided weight that comes with every call."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import SPDFunctionalConv

CASES = [
    ((3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((3, 2), (2, 3), (1, 0), (2, 1), 2),
    ((1, 1), (2, 2), (0, 0), (1, 1), 4),
    ((5,), (2,), (2,), (1,), 1),
    ((2, 3, 2), (2, 1, 2), (0, 1, 1), (1, 1, 1), 1),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "groups"), CASES)
def test_it_computes_what_the_function_does(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> None:
    dims = len(kernel)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    block = SPDFunctionalConv(4, 8, kernel, stride, padding, dilation, groups=groups).double()
    tensors = [torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((8, 4 // groups, *kernel), (8,))]
    for size in (9, 12):
        x = torch.randn(2, 4, *range(size, size + dims), dtype=torch.float64, requires_grad=True)
        expected = function(x, *tensors, stride, padding, dilation, groups)
        actual = block(x, *tensors)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        cotangent = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, [x, *tensors], cotangent)
        torch.testing.assert_close(torch.autograd.grad(actual, [x, *tensors], cotangent), wanted)


def test_the_weight_of_its_own_adds_to_the_one_that_is_given() -> None:
    block = SPDFunctionalConv(2, 2, (3, 3), 2, 1)
    x, weight = torch.randn(1, 2, 8, 8), torch.randn(2, 2, 3, 3)
    before = block(input=x, weight=weight)
    with torch.no_grad():
        block.phase_weight += 0.1
    assert not torch.allclose(block(x, weight), before)
    block(x, weight).sum().backward()
    assert block.phase_weight.grad is not None
    assert block.phase_weight.grad.any()


def test_unequal_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="into 3 groups"):
        SPDFunctionalConv(4, 6, (3, 3), 2, groups=3)
