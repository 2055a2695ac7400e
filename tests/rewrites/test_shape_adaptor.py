"""Strided operators are mixed with what they would drop."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import timm.layers
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call

from spdify.engine import apply, plan_model
from spdify.graph import survey
from spdify.records import Call, Inputs, InputSpec, Plan
from spdify.rewrites import AdaptShape
from spdify.rewrites.shape_adaptor import ShapeAdaptorParams
from spdify.rulebook import load_rules
from tests.rewrites.sites import check_refused, site_of, surveyed
from tests.rewrites.test_dynamic_pool import INPUTS, Residual


def rewrite(**params: Any) -> AdaptShape:  # noqa: ANN401 - some are wrong on purpose
    return AdaptShape(ShapeAdaptorParams(**params))


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.Conv2d(4, 8, 3, 2), {"operator": "slice"}, "this is a slice"),
        (nn.Conv2d(4, 8, 3, 2), {"operation": "forward:conv2d:0"}, "a functional convolution has no module"),
        (nn.Conv2d(4, 8, 3, 2), {"constants": {"eps": 1e-5}}, "made at each run"),
        (nn.Conv2d(4, 8, 3, 3), {}, "stride 2 along all axes"),
        (nn.MaxPool2d(3, 2), {}, "more or fewer positions than half"),
        (
            nn.Conv2d(4, 8, 3, 2, 1),
            {"calls": (Call(input=(1, 4, 640, 16), output=(1, 8, 320, 8)),)},
            "640 positions would not become 320 at first",
        ),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(rewrite(), site_of(module, channels=4, **fields), reason)


def test_large_maps_with_a_lower_start() -> None:
    large = (Call(input=(1, 4, 640, 16), output=(1, 8, 320, 8)),)
    assert rewrite(start=-7.0).check(site_of(nn.Conv2d(4, 8, 3, 2, 1), calls=large)) is None


def test_a_pool_that_pads_as_tensorflow_does() -> None:
    from timm.layers.pool2d_same import MaxPool2dSame

    check_refused(rewrite(), surveyed(MaxPool2dSame(3, 2), (4, 16, 16)), "pads by the size of each input")


MODULES = [
    nn.Conv2d(4, 6, 3, 2, 1, groups=2),
    nn.Conv2d(4, 6, 2, 2, bias=False),
    nn.Conv2d(4, 6, 1, 2),
    nn.Conv1d(4, 6, 3, 2, 1, padding_mode="reflect"),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool1d(2),
    timm.layers.Conv2dSame(4, 6, 3, 2),
]


@pytest.mark.parametrize("leader", ["", "stem.first"])
@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_it_is_near_at_the_start(module: nn.Module, leader: str) -> None:
    same = type(module) is timm.layers.Conv2dSame
    site = surveyed(module, (4, 16, 16)) if same else site_of(module, channels=4)
    module.double()
    old = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    errors = []
    for start in (-6.0, -12.0):
        made = rewrite(start=start, leader=leader)
        assert made.check(site) is None
        assert made.claim(site).value == "approximate"
        block, new = made.build(site).double(), {k: t.double() for k, t in made.weights(site, old).items()}
        assert new.keys() == block.state_dict().keys()
        assert ("alpha" in new) == (not leader)
        error = 0.0
        for size in product(range(7, 10), repeat=site.geometry.dims):
            x = torch.randn(2, 4, *size, dtype=torch.float64)
            expected, actual = functional_call(module, old, (x,)), functional_call(block, new, (x,))
            assert actual.shape == expected.shape
            error = max(error, float((actual - expected).abs().max() / expected.abs().max()))
        errors.append(error)
    assert 1e-4 < errors[0] < 1e-2
    assert errors[1] < errors[0] / 100, "the share of the map itself is 400 times as small"


@pytest.mark.parametrize("params", [{"start": 1.0}, {"start": -20.0}, {"start": "low"}, {"ratio": 0.5}])
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ShapeAdaptorParams(**params)


def test_an_average_pool_of_two_only_follows() -> None:
    class Shortcut(nn.Module):
        def __init__(self, *, beside: bool) -> None:
            super().__init__()
            self.pool, self.conv = nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(3, 3, 3, 2, 1) if beside else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.pool(x)
            return y + self.conv(x) if self.conv is not None else y  # type: ignore[no-any-return]

    inputs = Inputs(args=(InputSpec(shape=(1, 3, 32, 32)),))
    models = [Shortcut(beside=beside) for beside in (True, False)]
    both, alone = (plan_model(m, survey(m, inputs), load_rules("shape-adaptor"), inputs=inputs) for m in models)
    assert {d.site.name: d.params["leader"] for d in both.applied} == {"pool": "conv", "conv": ""}
    converted = apply(models[0], both)
    converted.conv.fill((0.0,))  # type: ignore[union-attr,operator]
    assert converted(torch.randn(1, 3, 32, 32)).shape == (1, 3, 24, 24)
    assert not alone.applied
    assert "shows no share to learn" in alone.decisions[0].reason


def test_what_meets_shares_a_number() -> None:
    model = Residual()
    plan = plan_model(model, survey(model, INPUTS), load_rules("shape-adaptor"), inputs=INPUTS)
    assert {d.site.name: d.params["leader"] for d in plan.applied} == {"pool": "", "conv": "", "down": "conv"}
    converted = apply(model, Plan.model_validate_json(plan.model_dump_json()))
    x = torch.randn(2, 3, 33, 36)
    assert converted(x).shape == model(x).shape
    converted.conv.fill((0.0,))  # type: ignore[operator]
    assert converted(x).shape == (2, 4, 12, 14), "of 16 and 18 that the pool gives, three quarters"
