"""Dilated convolutions side by side behind stages and blocks."""

from __future__ import annotations

import pytest
from torch import nn

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
@pytest.mark.parametrize(("rates", "width"), [("1,2,3", 0), ("6, 12,18", 3), ("1,1,1,1", 40)])
def test_it_starts_as_the_identity(rates: str, width: int, channels: int) -> None:
    check_starts_as_the_identity(made("insert-aspp", rates=rates, channels=width), end(channels=channels))


def test_its_weights_are_drawn_the_same_each_time() -> None:
    check_weights(made("insert-aspp"))


def test_where_it_goes() -> None:
    check_places("insert-aspp", standard="-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rates", "6,12"), ("rates", ""), ("rates", "0,1,2"), ("rates", "1,2,-3"), ("rates", "1,2,x"), ("rates", 6),
        ("rates", "1,2,3,"), ("rates", "1,2,10000"), ("rates", "1.5,2,3"), ("rates", ",".join(["1"] * 17)),
        ("channels", -1), ("channels", 1.5), ("channels", "8"),
    ],
)  # fmt: skip
def test_refused_parameters(name: str, value: object) -> None:
    check_refused("insert-aspp", name, **{name: value})


def test_parameters_reach_the_block() -> None:
    block = filled(made("insert-aspp", rates=" 2, 4,8 ,16"), end(channels=32))
    dilations = [m.dilation[0] for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert dilations == [2, 4, 8, 16]
    assert block.get_parameter("expand.weight").shape == (32, 4, 1, 1)
    assert made("insert-aspp", rates="2, 4,8").params.rates == "2,4,8"


def test_it_says_that_training_needs_batches() -> None:
    assert "two or more" in made("insert-aspp").claim(end()).training
