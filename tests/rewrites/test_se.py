"""Squeeze-and-excitation behind stages and blocks."""

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
@pytest.mark.parametrize("reduction", [1, 16, 1000])
def test_it_starts_as_the_identity(reduction: int, channels: int) -> None:
    check_starts_as_the_identity(made("insert-se", reduction=reduction), end(channels=channels))


def test_its_weights_are_drawn_the_same_each_time() -> None:
    check_weights(made("insert-se"))


def test_where_it_goes() -> None:
    check_places("insert-se", standard=":")


@pytest.mark.parametrize("reduction", [0, -1, 1.5, "4", True])
def test_refused_reductions(reduction: object) -> None:
    check_refused("insert-se", "reduction", reduction=reduction)


@pytest.mark.parametrize(("reduction", "width"), [(2, 16), (16, 2), (17, 2), (1000, 2)])
def test_the_bottleneck(reduction: int, width: int) -> None:
    block = filled(made("insert-se", reduction=reduction), end(channels=32))
    assert block.get_parameter("gate.fc1.weight").shape == (width, 32, 1, 1)


@pytest.mark.parametrize("stages", ["4", "7", "-5"])
def test_a_stage_that_is_not_there_is_none(stages: str) -> None:
    site = end().model_copy(update={"stage": 3, "stages": 4})
    assert made("insert-se", stages="3").keep(site) is None
    assert made("insert-se", stages="-1").keep(site) is None
    assert made("insert-se", stages=stages).keep(site) is not None
