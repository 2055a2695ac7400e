"""Strided operators learn by how much they shrink each axis."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call

from spdify.blocks import DynamicConv
from spdify.engine import apply, plan_model
from spdify.engine.leading import choose_leaders
from spdify.errors import PlanError
from spdify.graph import survey
from spdify.records import Inputs, InputSpec, Plan
from spdify.rewrites import LearnRatio
from spdify.rewrites.learned_size import LearnedSizeParams
from spdify.rulebook import load_rules
from spdify.verification.site_proof import prove_sites
from tests.rewrites.sites import check_refused, check_transformed, site_of

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 33, 36)),))


def rewrite(leader: Any = "") -> LearnRatio:  # noqa: ANN401 - some are wrong on purpose
    return LearnRatio(LearnedSizeParams(leader=leader))


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.Conv2d(4, 8, 3, 2), {"operator": "slice"}, "this is a slice"),
        (nn.Conv2d(4, 8, 3, 2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.Conv2d(4, 8, 3, 2), {"operation": "forward:conv2d:0"}, "a functional convolution has no module"),
        (nn.Conv2d(4, 8, 3, 2), {"constants": {"experts": 4}}, "made at each run"),
        (nn.Conv2d(4, 8, 3, 3), {}, "stride 2 along all axes"),
        (nn.Conv2d(4, 8, 3, (1, 2)), {}, "stride 2 along all axes"),
        (nn.MaxPool2d(3, 2), {}, "more or fewer positions than half"),
        (nn.AvgPool2d(5, 2, 1), {}, "more or fewer positions than half"),
        (nn.Conv2d(4, 8, 3, 2), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(rewrite(), site_of(module, channels=4, **fields), reason)


@pytest.mark.parametrize("leader", ["", "stem.other"])
def test_a_max_pool_of_two_stays_what_it_is(leader: str) -> None:
    made = rewrite(leader)
    check_transformed(made, nn.MaxPool2d(2), list(product(range(5, 8), repeat=2)), channels=3)
    check_transformed(made, nn.MaxPool1d(2), [(7,), (8,)], channels=3)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, 2, 1, groups=2),
        nn.Conv2d(4, 6, 2, 2, bias=False),
        nn.Conv2d(4, 6, 1, 2),
        nn.Conv3d(4, 6, 3, 2, 1),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2),
    ],
    ids=repr,
)
def test_the_sizes_at_the_start(module: nn.Module) -> None:
    site = site_of(module, channels=4)
    assert rewrite().claim(site).value == "approximate"
    assert "stem.first" in rewrite("stem.first").claim(site).training
    old = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    for made in (rewrite(), rewrite("stem.first")):
        assert made.check(site) is None
        block, new = made.build(site), made.weights(site, old)
        assert new.keys() == block.state_dict().keys()
        assert ("ratio" in new) == (made.params.leader == "")
        for size in product(range(7, 10), repeat=site.geometry.dims):
            x = torch.randn(2, 4, *size)
            assert functional_call(block, new, (x,)).shape == functional_call(module, old, (x,)).shape


@pytest.mark.parametrize("params", [{"leader": 1}, {"ratio": 0.5}])
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LearnedSizeParams(**params)


class Residual(nn.Module):
    """Two levels, the second of which has two paths; or a third path that is half as large whatever comes."""

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.conv, self.down = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, 2)
        self.back = nn.Upsample(scale_factor=2) if fixed else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(x)
        y = self.conv(x) + self.down(x)
        return self.back(y) + x.mean(1, keepdim=True) if self.back else y  # type: ignore[no-any-return]


def planned(model: nn.Module, inputs: Inputs = INPUTS) -> Plan:
    return plan_model(model, survey(model, inputs), load_rules("dynopool"), inputs=inputs)


def test_what_meets_shares_a_ratio() -> None:
    model = Residual()
    plan = planned(model)
    model.double()
    assert {d.site.name: d.params["leader"] for d in plan.applied} == {"pool": "", "conv": "", "down": "conv"}
    assert {d.site.name: d.claim.value for d in plan.applied if d.claim} == {
        "pool": "exact", "conv": "approximate", "down": "approximate",
    }  # fmt: skip
    converted = apply(model, Plan.model_validate_json(plan.model_dump_json()))
    x = torch.randn(2, 3, 33, 36, dtype=torch.float64)
    assert converted(x).shape == model(x).shape
    converted.conv.fill((0.3, 0.8))  # type: ignore[operator]
    converted.pool.fill((0.7, 0.7))  # type: ignore[operator]
    assert converted(x).shape == (2, 4, 7, 20)
    twin = apply(model, plan)
    twin.load_state_dict(converted.state_dict())
    assert torch.equal(twin(x), converted(x))


def test_a_network_that_only_runs_at_one_half() -> None:
    even = Inputs(args=(InputSpec(shape=(1, 3, 32, 32)),))
    plan = planned(Residual(fixed=True), even)
    assert not plan.applied
    assert all("does not run with other sizes there" in d.reason for d in plan.decisions)


def test_proofs_of_a_part_of_the_plan_have_leaders() -> None:
    model = Residual()
    plan = planned(model)
    checks = {check.name: check for check in prove_sites(model, plan, seed=0)}
    assert (checks["site pool"].outcome, checks["site pool"].value) == ("passed", 0.0)
    assert {checks[f"site {name}"].outcome for name in ("conv", "down")} == {"measured"}
    led = choose_leaders([d for d in plan.applied if d.site.name == "down"])
    assert led[0].params["leader"] == ""
    assert type(apply(model, plan.model_copy(update={"decisions": tuple(led)})).down) is DynamicConv


def test_a_leader_that_is_not_there() -> None:
    plan = planned(Residual())
    decisions = tuple(
        d.model_copy(update={"params": {"leader": "nobody"}}) if d.site.name == "down" else d for d in plan.decisions
    )
    with pytest.raises(PlanError, match="no block at nobody"):
        apply(Residual(), plan.model_copy(update={"decisions": decisions}))
