"""Fusion of a pyramid's levels behind it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from spdify.blocks import AdaptiveScaleFusion
from spdify.engine import apply, make_plan
from spdify.graph import fingerprint, survey
from spdify.records import Inputs, InputSpec
from spdify.rewrites import InsertScaleFusion
from spdify.rewrites.asff import ScaleFusionParams
from spdify.rulebook import load_rules
from spdify.verification.site_proof import site_error
from tests.rewrites.sites import check_refused, site_of

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 26, 34)),))


class Pyramid(nn.Module):
    """Three maps of sizes that do not divide, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 5, 3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.a(x)
        b = self.b(a)
        return OrderedDict([("0", a), ("1", b), ("pool", self.c(b))])


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neck = Pyramid()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([level.mean((2, 3)) for level in self.neck(x).values()], dim=1)


def rewrite(**params: Any) -> InsertScaleFusion:  # noqa: ANN401 - parameters of the rewrite
    return InsertScaleFusion(ScaleFusionParams(**params))


def test_refused() -> None:
    check_refused(rewrite(), site_of(nn.Conv2d(3, 4, 3, 2)), "is for pyramid, this is a conv")


@pytest.mark.parametrize(
    "params", [{"own": 1.0}, {"own": 0.0}, {"reach": 0}, {"compress": 0}, {"interpolation": "cubic"}, {"levels": 3}]
)
def test_parameters_that_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rewrite(**params)


@pytest.mark.parametrize(("own", "limit"), [(0.99, 0.05), (0.9, 0.5), (0.999999, 1e-5)])
def test_near_the_function_by_its_own_share(own: float, limit: float) -> None:
    torch.manual_seed(0)
    model, book = Network(), load_rules(("asff",))
    plan = make_plan(survey(model, INPUTS, book.kinds), book, fingerprint=fingerprint(model), inputs=INPUTS)
    (decision,) = plan.applied
    assert decision.site.path == "neck"
    assert decision.claim is not None
    assert decision.claim.value == "approximate"
    decision = decision.model_copy(update={"params": decision.params | {"own": own}})
    error = site_error(nn.Identity(), decision, seed=0)
    assert limit / 100 < error < limit
    converted = apply(model, plan.model_copy(update={"decisions": (decision,)}))
    assert isinstance(converted.get_submodule("neck.end_0"), AdaptiveScaleFusion)
    x = torch.randn(3, 3, 27, 41)
    with torch.no_grad():
        difference = (converted(x) - model(x)).abs().max() / model(x).abs().max()
    assert 0 < float(difference) < limit


def test_weights_are_those_of_a_fresh_block_and_the_same_each_time() -> None:
    (site,) = (s for s in survey(Network(), INPUTS, {"pyramid"}).sites if s.kind == "pyramid")
    first, second = (rewrite(compress=2, reach=1).weights(site, {}) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    fresh = AdaptiveScaleFusion((4, 6, 5), ((13, 17), (7, 9), (3, 4)), compress=2, reach=1)
    assert {name: t.shape for name, t in first.items()} == {name: t.shape for name, t in fresh.state_dict().items()}
