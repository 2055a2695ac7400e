"""The registry of rewrites."""

from __future__ import annotations

import re

import pytest

from spdify.records import Record
from spdify.rewrites import REGISTRY, Rewrite


def test_the_names_that_plans_and_rulebooks_hold() -> None:
    # Saved plans keep these names: one may be added, none renamed.
    names = {"replace-average-pool", "replace-blur-pool", "replace-max-pool", "replace-strided-conv"}
    assert names | {"fold-pool", "remove-pool", "replace-stem", "unstride-conv"} <= set(REGISTRY)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", name) for name in REGISTRY)
    assert list(REGISTRY) == sorted(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_each_rewrite_describes_itself(name: str) -> None:
    kind = REGISTRY[name]
    assert issubclass(kind, Rewrite)
    assert kind.operators
    assert "arXiv:" in kind.summary
    assert issubclass(kind.params_type, Record)
    assert kind.params_type().model_dump() is not None, "every parameter has a default"
