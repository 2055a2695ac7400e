"""Liveness of blocks with parameters that are zero at the start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from spdify.blocks import SqueezeExcitation
from spdify.engine import apply, make_plan
from spdify.graph import fingerprint, survey
from spdify.records import Call, Claim, Decision, Geometry, Inputs, InputSpec, Site
from spdify.rulebook import load_rulebook
from spdify.verification import prove
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


class Levels(nn.Module):
    """Two levels, by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        return [fine, self.coarse(fine)]


class Half(nn.Module):
    """Uses the fine level, and the coarse one to choose alone."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = Levels()

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.neck(x)
        return fine + coarse.detach().mean()


def test_a_level_that_learns_nothing_in_the_original_either() -> None:
    model, book, inputs = Half(), load_rulebook("asff"), Inputs(args=(InputSpec(shape=(1, 3, 19, 18)),))
    before = survey(model, inputs, book.kinds)
    plan = make_plan(before, book, fingerprint=fingerprint(model), inputs=inputs)

    def made(dtype: torch.dtype) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return (torch.randn(2, 3, 19, 18).to(dtype),), {}

    proof = prove(model, apply(model, plan), plan, before, made, level="model", seed=0)
    (check,) = (check for check in proof.checks if check.name == "gradients")
    assert check.outcome == "passed"
    assert "levels.1" in check.detail
    assert "in the original neither" in check.detail
