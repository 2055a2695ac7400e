"""A pool is taken out."""

from __future__ import annotations

from typing import Any

import pytest
import timm.layers
import torch
from pydantic import ValidationError
from torch import nn

from spdify.rewrites import RemovePool
from spdify.rewrites.base import NoParams
from tests.rewrites.sites import check_refused, site_of, surveyed

REWRITE = RemovePool(NoParams())


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.Conv2d(4, 8, 3, 2), {}, "is for avg_pool and blur_pool and max_pool, this is a conv"),
        (nn.MaxPool2d(2), {"operator": "slice"}, "this is a slice"),
        (nn.MaxPool2d(2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.MaxPool2d(2), {"obstacles": ("it returns indices",)}, "it returns indices"),
        (nn.AvgPool2d(2), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(REWRITE, site_of(module, channels=4, **fields), reason)


@pytest.mark.parametrize("fields", [{}, {"operation": "forward:max_pool2d:0"}, {"channels": (3, 5)}])
def test_what_is_left_gives_its_input_back(fields: dict[str, Any]) -> None:
    site = site_of(nn.MaxPool2d(3, 2, 1), channels=3).model_copy(update=fields)
    assert REWRITE.check(site) is None
    block = REWRITE.build(site)
    block.load_state_dict(REWRITE.weights(site, {}))
    x = torch.randn(2, 3, 9, 10)
    assert block(x) is x


def test_a_blur_pool_too() -> None:
    assert REWRITE.check(surveyed(timm.layers.BlurPool2d(3), (3, 17, 16))) is None


def test_the_claim_says_that_maps_grow() -> None:
    claim = REWRITE.claim(site_of(nn.AvgPool2d((2, 3)), channels=3))
    assert claim.value == "reinitialised"
    assert "2x3 times larger" in claim.training


def test_it_takes_no_params() -> None:
    with pytest.raises(ValidationError):
        NoParams(form="conv")  # type: ignore[call-arg]
