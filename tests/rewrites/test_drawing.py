"""Weights drawn as a fresh block draws them."""

from __future__ import annotations

import torch

from spdify.blocks import SPDConv
from spdify.rewrites.drawing import drawn_weights


def test_they_are_those_of_a_fresh_block() -> None:
    drawn = drawn_weights(lambda: SPDConv(3, 4), 5)
    torch.manual_seed(5)
    fresh = SPDConv(3, 4).state_dict()
    assert set(drawn) == set(fresh)
    assert all(torch.equal(drawn[name], fresh[name]) for name in fresh)
    assert not any(tensor.requires_grad for tensor in drawn.values())


def test_the_seed_alone_decides() -> None:
    first = drawn_weights(lambda: SPDConv(3, 4), 0)["weight"]
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            second = drawn_weights(lambda: SPDConv(3, 4), 0)["weight"]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (second.dtype, second.device.type) == (torch.float32, "cpu")
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, drawn_weights(lambda: SPDConv(3, 4), 1)["weight"])


def test_a_fault_leaves_nothing_changed() -> None:
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        drawn_weights(lambda: SPDConv(3, 4, groups=2), 0)
    except ValueError:
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
