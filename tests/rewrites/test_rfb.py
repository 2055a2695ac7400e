"""Receptive field blocks behind stages and blocks."""

from __future__ import annotations

import math

import pytest
import torch

from tests.rewrites.inserted import (
    check_places,
    check_refused,
    check_starts_as_the_identity,
    check_weights,
    end,
    filled,
    made,
)


@pytest.mark.parametrize("channels", [1, 8, 33])
@pytest.mark.parametrize(("reduction", "scale"), [(8, 0.1), (1, 3.0), (1000, 1.0)])
def test_it_starts_as_the_identity(reduction: int, scale: float, channels: int) -> None:
    check_starts_as_the_identity(made("insert-rfb", reduction=reduction, scale=scale), end(channels=channels))


def test_its_weights_are_drawn_the_same_each_time() -> None:
    check_weights(made("insert-rfb"))


def test_where_it_goes() -> None:
    check_places("insert-rfb", standard="-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reduction", 0), ("reduction", "8"), ("scale", 0), ("scale", -0.1), ("scale", math.nan), ("scale", math.inf),
        ("activation", "gelu"),
    ],
)  # fmt: skip
def test_refused_parameters(name: str, value: object) -> None:
    check_refused("insert-rfb", name, **{name: value})


def test_the_activation_of_the_paper_keeps_what_is_not_negative() -> None:
    rewrite, site = made("insert-rfb", activation="relu"), end()
    assert rewrite.claim(site).value == "approximate"
    assert "negative" in rewrite.claim(site).training
    block, x = filled(rewrite, site).double(), torch.randn(2, 8, 7, 5, dtype=torch.float64)
    assert torch.equal(block(x), x.relu())
    assert torch.equal(block(x.abs()), x.abs())


def test_parameters_reach_the_block() -> None:
    block = filled(made("insert-rfb", reduction=4, scale=2.0), end(channels=32))
    assert block.get_parameter("merge.weight").shape == (32, 24, 1, 1)
    assert block.scale == 2.0
