"""The deployed form of a network whose output says nothing: compared inside, and a wrong form is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from spdify.engine import fuse_blocks
from spdify.graph.structure import detached_copy
from spdify.verification.form_proof import prove_form
from tests.detectors import SHAPE, two_stages
from tests.verification.test_inside import Blind

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = [(Blind, (3, 19, 18), "body.0"), (two_stages, SHAPE, "backbone.0")]


def fused(model: nn.Module) -> nn.Module:
    twin = detached_copy(model)
    fuse_blocks(twin)
    return twin


@pytest.mark.parametrize(("make", "shape", "path"), CASES)
def test_it_is_compared_inside(
    make: Callable[[], nn.Module], shape: tuple[int, ...], path: str, convert: Callable
) -> None:
    def wrong(model: nn.Module) -> nn.Module:
        twin = fused(model)
        with torch.no_grad():
            next(twin.get_submodule(path).parameters())[0] += 1e-3
        return twin

    conversion = convert(make(), shape)
    right = prove_form(conversion.converted, fused, conversion.inputs, seed=0)
    assert right.outcome == "passed"
    assert prove_form(conversion.converted, wrong, conversion.inputs, seed=0).outcome == "failed"


def test_what_is_compared_is_said(convert: Callable) -> None:
    conversion = convert(Blind(), (3, 19, 18))
    check = prove_form(conversion.converted, fused, conversion.inputs, seed=0)
    assert "compared are the outputs of body, head" in check.detail
