"""Where the blocks of a plan are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spdify.engine.places import block_places, place_of
from tests.engine.networks import Entangled, Net, Shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan


def test_one_place_each(plan_for: Callable[..., Plan]) -> None:
    places = block_places(plan_for(Net(), 1, 3, 33, 35))
    assert places == {path: (path,) for path in ("stem.0", "pool", "stage.conv", "stage.shortcut", "down")}


def test_every_name_of_a_shared_module(plan_for: Callable[..., Plan]) -> None:
    assert block_places(plan_for(Shared(), 1, 4, 64, 64)) == {"a": ("a", "b"), "inner.0": ("inner.0", "again")}


@pytest.mark.parametrize("pool_first", [False, True])
def test_what_lies_inside_a_replaced_module_goes_with_it(plan_for: Callable[..., Plan], *, pool_first: bool) -> None:
    places = block_places(plan_for(Entangled(pool_first=pool_first), 1, 3, 32, 32))
    assert sorted(places.values()) == [("conv",), ("pool",)]


@pytest.mark.parametrize(
    ("path", "place"),
    [("a", "a"), ("a.b.c", "a"), ("x.y", "x.y"), ("x.y.z", "x.y"), ("x", None), ("ab", None), ("", None)],
)
def test_place_of(path: str, place: str | None) -> None:
    assert place_of(path, {"a", "x.y"}) == place
