"""Fixtures for the tests of more than one package."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spdify.records import Plan
    from spdify.rulebook import Rulebook


if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; here, before anything imports PyTorch, and for the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def plan_for() -> Callable[..., Plan]:
    """Give a function that plans a model for one input of this shape (in the dtype of its first parameter, if any).

    It takes the default rulebook, or another.
    """
    from spdify.engine import make_plan
    from spdify.graph import fingerprint, survey
    from spdify.records import Inputs, InputSpec
    from spdify.rulebook import load_rulebook

    def plan(model: nn.Module, *shape: int, rulebook: Rulebook | None = None) -> Plan:
        dtype = next((str(p.dtype).removeprefix("torch.") for p in model.parameters()), "float32")
        inputs = Inputs(args=(InputSpec(shape=shape, dtype=dtype),))
        rules = rulebook or load_rulebook("spd")
        return make_plan(survey(model, inputs), rules, fingerprint=fingerprint(model), inputs=inputs)

    return plan
