"""Non-local attention behind stages and blocks."""

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
@pytest.mark.parametrize(("reduction", "scale"), [(2, True), (1, False), (1000, True)])
def test_it_starts_as_the_identity(reduction: int, scale: bool, channels: int) -> None:
    check_starts_as_the_identity(made("insert-non-local", reduction=reduction, scale=scale), end(channels=channels))


def test_its_weights_are_drawn_the_same_each_time() -> None:
    check_weights(made("insert-non-local"))


def test_where_it_goes() -> None:
    check_places("insert-non-local", standard="-1")


@pytest.mark.parametrize(("name", "value"), [("reduction", 0), ("reduction", 2.5), ("scale", "yes"), ("scale", 1)])
def test_refused_parameters(name: str, value: object) -> None:
    check_refused("insert-non-local", name, **{name: value})


def test_parameters_reach_the_block() -> None:
    block = filled(made("insert-non-local", reduction=4, scale=False), end(channels=32))
    assert block.get_parameter("attention.t.weight").shape == (8, 32, 1, 1)
    assert block.get_submodule("attention").scale == 1.0
