from __future__ import annotations

import pytest
import torch

from tests.budgeting.networks import Planner, Small, meta_model


@pytest.fixture(scope="session")
def resnet50() -> Planner:
    return Planner(meta_model("resnet50"), 224)


@pytest.fixture(scope="session")
def small() -> Planner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Planner(Small().eval(), 128)
