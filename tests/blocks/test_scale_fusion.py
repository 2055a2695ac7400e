"""Fusion of a pyramid's levels against its definition, written out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import AdaptiveScaleFusion

CHANNELS, SIZES = (4, 6, 5, 3), ((13, 18), (7, 9), (4, 5), (2, 3))


class Pair(NamedTuple):
    fine: Tensor
    coarse: Tensor


def pyramid(batch: int = 2, count: int = 4) -> list[Tensor]:
    levels = zip(CHANNELS[:count], SIZES[:count], strict=True)
    return [torch.randn(batch, c, *size, dtype=torch.float64) for c, size in levels]


def moved(block: nn.Module) -> Any:  # noqa: ANN401 - the block, whose parts mypy does not know
    """Give a block in which nothing is as it started."""
    torch.manual_seed(0)
    for parameter in block.double().parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def conv(layer: Any, x: Tensor, **window: int) -> Tensor:  # noqa: ANN401 - a convolution
    return F.conv2d(x, layer.weight, layer.bias, **window)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_each_level_is_the_weighed_sum_of_all(interpolation: Any) -> None:  # noqa: ANN401 - a literal
    block = moved(AdaptiveScaleFusion(CHANNELS[:3], SIZES[:3], compress=2, interpolation=interpolation))
    a, b, c = pyramid(count=3)
    corners = {} if interpolation == "nearest" else {"align_corners": False}
    fine, middle, coarse = block.levels

    def up(layer: Any, x: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ANN401 - a convolution
        return F.interpolate(conv(layer.conv, x), size=size, mode=interpolation, **corners)

    maps = [
        (fine, [a, up(fine.resize[1], b, SIZES[0]), up(fine.resize[2], c, SIZES[0])]),
        (middle, [conv(middle.resize[0].conv, a, stride=2, padding=1), b, up(middle.resize[2], c, SIZES[1])]),
        (
            coarse,
            [
                conv(coarse.resize[0].conv, F.max_pool2d(a, 3, 2, 1), stride=2, padding=1),
                conv(coarse.resize[1].conv, b, stride=2, padding=1),
                c,
            ],
        ),
    ]
    for (level, resized), actual in zip(maps, block([a, b, c]), strict=True):
        hints = torch.cat([conv(layer, y) for layer, y in zip(level.compress, resized, strict=True)], dim=1)
        assert hints.shape[1] == 6
        exponents = conv(level.choose, hints).exp()
        total = sum(y * exponents[:, m : m + 1] for m, y in enumerate(resized)) / exponents.sum(1, keepdim=True)
        torch.testing.assert_close(actual, conv(level.expand, total, padding=1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("own", [0.9, 0.99])
def test_a_level_starts_with_its_own_share(own: float) -> None:
    block, levels = AdaptiveScaleFusion(CHANNELS, SIZES, own=own, reach=1).double(), pyramid()
    with torch.no_grad():
        for level in block.levels:
            for layer in (part for part in level.modules() if hasattr(part, "pools")):
                nn.init.zeros_(layer.conv.weight)
                nn.init.zeros_(layer.conv.bias)
        for before, after in zip(levels, block(levels), strict=True):
            torch.testing.assert_close(after, own * before, rtol=1e-6, atol=1e-6)


def test_reach_goes_by_size_whatever_the_order() -> None:
    block = AdaptiveScaleFusion((4, 3, 6), ((13, 18), (2, 3), (7, 9)), reach=1)
    assert block.takes == [[0, 2], [1, 2], [0, 1, 2]]


@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "ordered", "named"])
def test_what_holds_the_levels_stays(kind: str) -> None:
    block, (a, b) = AdaptiveScaleFusion(CHANNELS[:2], SIZES[:2]).double(), pyramid(count=2)
    made: dict[str, Any] = {
        "list": [a, b],
        "tuple": (a, b),
        "dict": {"0": a, "pool": b},
        "ordered": OrderedDict(p=a, q=b),
        "named": Pair(a, b),
    }
    given = made[kind]
    found = block(given)
    assert type(found) is type(given)
    if isinstance(given, dict):
        assert list(found) == list(given)
        found = list(found.values())
    assert [y.shape for y in found] == [a.shape, b.shape]


def test_other_sizes_than_those_it_was_made_for() -> None:
    block = AdaptiveScaleFusion(CHANNELS, SIZES)
    sizes = [(50, 61), (25, 31), (12, 15), (1, 1)]
    levels = [torch.randn(1, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]
    assert [tuple(y.shape[2:]) for y in block(levels)] == sizes


def test_every_weight_learns_after_one_step() -> None:
    torch.manual_seed(0)
    block, levels = AdaptiveScaleFusion(CHANNELS, SIZES, own=0.6).double(), pyramid()
    goals = [torch.randn_like(level) for level in levels]
    optimizer = torch.optim.SGD(block.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack([(y * goal).sum() for y, goal in zip(block(levels), goals, strict=True)]).sum().backward()
        optimizer.step()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("arguments", [{"sizes": SIZES[:3]}, {"reach": 0}, {"own": 1.0}, {"own": 0.0}])
def test_arguments_that_do_not_fit(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot fuse levels"):
        AdaptiveScaleFusion(**({"channels": CHANNELS, "sizes": SIZES} | arguments))
