"""CBAM behind stages and blocks."""

from __future__ import annotations

import pytest

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
@pytest.mark.parametrize(("reduction", "kernel"), [(16, 7), (1, 1), (1000, 11)])
def test_it_starts_as_the_identity(reduction: int, kernel: int, channels: int) -> None:
    check_starts_as_the_identity(made("insert-cbam", reduction=reduction, kernel=kernel), end(channels=channels))


def test_its_weights_are_drawn_the_same_each_time() -> None:
    check_weights(made("insert-cbam"))


def test_where_it_goes() -> None:
    check_places("insert-cbam", standard=":")


@pytest.mark.parametrize(
    ("name", "value"),
    [("reduction", 0), ("reduction", 1.5), ("kernel", 0), ("kernel", 4), ("kernel", 65), ("kernel", "7")],
)
def test_refused_parameters(name: str, value: object) -> None:
    check_refused("insert-cbam", name, **{name: value})


def test_the_sizes_of_its_layers() -> None:
    block = filled(made("insert-cbam", reduction=4, kernel=5), end(channels=32))
    assert block.get_parameter("gate.channel.fc1.weight").shape == (8, 32, 1, 1)
    assert block.get_parameter("gate.spatial.conv.conv.weight").shape == (1, 2, 5, 5)
