"""Liveness of blocks with parameters that are zero at the start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from spdify.blocks import SqueezeExcitation
from spdify.records import Call, Claim, Decision, Geometry, Site
from spdify.verification.liveness import LIVE_THRESHOLD, Trial, _by_perturbation, _is_weight, _sigma

if TYPE_CHECKING:
    from collections.abc import Callable


class Standardised(nn.Module):
    """A standardised convolution that the output depends on by `share`."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.conv, self.other, self.share = timm.layers.StdConv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2, 1), share

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 4, …)."""
        return self.share * self.conv(x) + self.other(x)


def test_weights_that_are_zero_at_the_start_do_not_make_a_site_look_dead(convert: Callable) -> None:
    live = convert(Standardised(1.0)).prove()["live sites"]
    assert live.outcome == "passed"
    assert live.value > 1e-3


def test_a_dead_site_with_such_weights_is_still_seen(convert: Callable) -> None:
    live = convert(Standardised(0.0)).prove()["live sites"]
    assert live.outcome == "not run"
    assert "conv" in live.detail


@pytest.mark.parametrize(
    ("parameter", "sigma"),
    [
        (torch.tensor([[3.0, -4.0]]), math.sqrt(12.5)),
        (torch.zeros(5, 8, 2, 2), 1 / math.sqrt(32)),
        (torch.zeros(5), 1.0),
    ],
)
def test_the_size_of_a_perturbation(parameter: Tensor, sigma: float) -> None:
    assert float(_sigma(parameter)) == pytest.approx(sigma)


def test_the_biases_of_experts_are_no_weights() -> None:
    assert _is_weight("weight", torch.zeros(4, 8))
    assert not _is_weight("bias", torch.zeros(4, 8))
    assert not _is_weight("weight", torch.zeros(8))


@pytest.mark.parametrize("seed", range(8))
def test_a_narrow_block_that_starts_silent_is_not_closed_by_what_is_to_rouse_it(seed: int) -> None:
    window = Geometry(in_channels=4, out_channels=4, kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    shape = (2, 4, 3, 3)
    site = Site(
        path="stage",
        operation="end:0",
        operator="stage_end",
        type_name="Sequential",
        geometry=window,
        calls=(Call(input=shape, output=shape),),
    )
    decision = Decision(site=site, action="applied", claim=Claim(value="exact", training=""))
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.add_module("stage", nn.Sequential())
    model.get_submodule("stage").add_module("end_0", SqueezeExcitation(4))
    model.double()
    # The same means for all images: a hidden channel is open for all or for none.
    trial = Trial(model, model, ((torch.ones(shape, dtype=torch.float64),), {}), seed=0)
    assert _by_perturbation(trial, decision, "train") > LIVE_THRESHOLD
