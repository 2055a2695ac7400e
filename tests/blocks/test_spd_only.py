"""SpaceToDepth: whole blocks, and what becomes of the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from spdify.blocks import SpaceToDepth, space_to_depth


@pytest.mark.parametrize("edge", ["crop", "replicate", "zeros"])
def test_sizes_that_the_scale_divides(edge: Any) -> None:  # noqa: ANN401 - one of three words
    x = torch.randn(2, 3, 6, 8)
    assert torch.equal(SpaceToDepth(2, edge=edge)(x), nn.PixelUnshuffle(2)(x))
    assert SpaceToDepth((1, 1), edge=edge)(x) is not None
    assert torch.equal(SpaceToDepth((1, 1), edge=edge)(x), x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_other_sizes(dims: int) -> None:
    scale = (3, 2, 2)[:dims]
    x = torch.randn(2, 4, *(10, 7, 5)[:dims])
    crop = (slice(None), slice(None), *(slice(n - n % s) for n, s in zip(x.shape[2:], scale, strict=True)))
    torch.testing.assert_close(SpaceToDepth(scale)(x), space_to_depth(x[crop], scale))
    pads = [size for n, s in zip(reversed(x.shape[2:]), reversed(scale), strict=True) for size in (0, -n % s)]
    for edge, mode in (("zeros", "constant"), ("replicate", "replicate")):
        y = SpaceToDepth(scale, edge=edge)(x)  # type: ignore[arg-type]
        torch.testing.assert_close(y, space_to_depth(nn.functional.pad(x, pads, mode=mode), scale))


@pytest.mark.parametrize(
    ("pool", "edge"),
    [
        (nn.AvgPool2d(2), "crop"),
        (nn.AvgPool2d(3), "crop"),
        (nn.AvgPool2d(2, ceil_mode=True), "replicate"),
        (nn.AvgPool2d((1, 2), ceil_mode=True, count_include_pad=False), "replicate"),
        (nn.AvgPool2d(3, ceil_mode=True, divisor_override=9), "zeros"),
    ],
    ids=str,
)
def test_the_mean_of_each_block_is_the_average_pool(pool: nn.AvgPool2d, edge: Any) -> None:  # noqa: ANN401 - a word
    scale = (pool.kernel_size,) * 2 if isinstance(pool.kernel_size, int) else pool.kernel_size
    for size in ((9, 12), (10, 11), (8, 7)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        y = SpaceToDepth(scale, edge=edge)(x)
        torch.testing.assert_close(y.unflatten(1, (3, -1)).mean(2), pool(x))


def test_replication_is_no_mean_where_two_of_three_positions_are_there() -> None:
    x = torch.randn(1, 1, 3, 5)
    y = SpaceToDepth(3, edge="replicate")(x)
    assert (y.mean(1, keepdim=True) - nn.AvgPool2d(3, ceil_mode=True)(x)).abs().max() > 1e-3


def test_faults() -> None:
    with pytest.raises(ValueError, match="expected one of crop, replicate, zeros for an edge, got 'wrap'"):
        SpaceToDepth(edge="wrap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smaller than a block"):
        SpaceToDepth(4)(torch.randn(1, 2, 3, 9))
    assert SpaceToDepth(4, edge="zeros")(torch.randn(1, 2, 3, 9)).shape == (1, 32, 1, 3)


def test_by_hand() -> None:
    block = SpaceToDepth((2, 3), edge="zeros")
    assert repr(block) == "SpaceToDepth(scale=(2, 3), edge='zeros')"
    assert (block.stride, dict(block.state_dict())) == ((2, 3), {})
