"""The form that people have today computes what an SPD-Conv does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spdify.benchmarking.released import RULES, SlicedConv, concatenated_slices, slice_blocks
from spdify.blocks import SPDConv
from spdify.rulebook.parsing import parse_rulebook


def test_slices_are_in_the_order_of_the_released_code() -> None:
    x = torch.randn(2, 3, 6, 8)
    paper = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    assert torch.equal(concatenated_slices(x, (2, 2)), paper)


@pytest.mark.parametrize(
    "block",
    [SPDConv(4, 6), SPDConv(4, 6, (2, 1), (2, 3), [(2, 1), (0, 2)], bias=False), SPDConv(4, 4, 2, groups=4)],
    ids=["paper", "unequal", "depthwise"],
)
def test_computes_the_same(block: SPDConv) -> None:
    sliced = SlicedConv(block.double())
    for size in ((12, 12), (13, 11)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(sliced(x), block(x))


def test_blocks_that_it_does_not_know_stay() -> None:
    with pytest.raises(ValueError, match="dense or depthwise"):
        SlicedConv(SPDConv(4, 4, groups=2))
    net = nn.Sequential(SPDConv(4, 4), SPDConv(4, 4, groups=2))
    assert slice_blocks(net) == 1
    assert isinstance(net[0], SlicedConv)


def test_its_rules_can_be_read() -> None:
    (rule,) = parse_rulebook(RULES, name="released", file="-").rules
    assert rule.params["kernel"] == "odd"
