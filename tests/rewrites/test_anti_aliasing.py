"""Strided operators run with stride 1, then a blur drops positions."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call

from spdify.blocks import BlurredActivation, BlurredAvgPool, BlurredConv, BlurredMaxPool, UnstridedConv
from spdify.engine import apply, map_weights, plan_model
from spdify.engine.applying import apply_structure
from spdify.graph import survey
from spdify.records import Inputs, InputSpec, Plan
from spdify.rewrites import AntiAlias
from spdify.rewrites.anti_aliasing import AntiAliasParams
from spdify.rulebook import load_rules
from spdify.verification.site_proof import prove_sites
from tests.rewrites.sites import check_refused, site_of

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 33, 36)),))


def rewrite(**params: Any) -> AntiAlias:  # noqa: ANN401 - some are wrong on purpose
    return AntiAlias(AntiAliasParams(**params))


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.Conv2d(4, 8, 3, 2), {"operator": "slice"}, "this is a slice"),
        (nn.Conv2d(4, 8, 3, 2), {"operator": "blur_pool"}, "this is a blur_pool"),
        (nn.Conv2d(4, 8, 3, 2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.Conv2d(4, 8, 3, 2), {"operation": "forward:conv2d:0"}, "a functional convolution has no module"),
        (nn.Conv2d(4, 8, 3, 2), {"constants": {"experts": 4}}, "made at each run"),
        (nn.Conv2d(4, 8, 3, 2), {"constants": {"eps": 1e-6}}, "made at each run"),
        (nn.Conv2d(4, 8, 3, 2), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(rewrite(), site_of(module, channels=4, **fields), reason)


def test_maps_that_cannot_be_reflected() -> None:
    site = site_of(nn.MaxPool2d(8), channels=4)  # 16 positions become 2
    assert rewrite(pad="reflect").check(site) is None
    check_refused(rewrite(pad="reflect", filter=5), site, "gives 2 positions is too small to be reflected")
    assert rewrite(filter=5).check(site) is None


CONVS = [
    nn.Conv2d(4, 6, 3, 2, 1, groups=2),
    nn.Conv2d(4, 6, 2, 2, bias=False),
    nn.Conv2d(4, 6, 5, (2, 3), 2, padding_mode="reflect"),
    nn.Conv2d(4, 6, 1, 2),
    nn.Conv1d(4, 6, 3, 2, 1),
    nn.Conv3d(4, 6, 3, (1, 2, 2), 1),
]
POOLS = [
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.MaxPool1d(2),
]


@pytest.mark.parametrize("position", ["activation", "conv"])
@pytest.mark.parametrize("module", [*CONVS, *POOLS], ids=repr)
def test_the_block_with_what_completes_it(module: nn.Module, position: str) -> None:
    """Sizes are those of before for every remainder, weights are passed on, and a constant map stays the same."""
    made, site = rewrite(position=position), site_of(module, channels=4)
    assert made.check(site) is None
    assert made.claim(site).value == "approximate"
    old = {name: torch.rand_like(p) for name, p in module.named_parameters()}
    new = made.weights(site, old)
    block = made.build(site)
    assert new.keys() == block.state_dict().keys()
    assert all(torch.equal(new[name], old[name]) for name in old)
    assert {name: tuple(t.shape) for name, t in old.items()} == made.reads(site)
    for size in product(range(9, 13), repeat=site.geometry.dims):
        x = torch.rand(2, 4, *size)
        y = made.completed(site, functional_call(block, new, (x,)))
        expected = functional_call(module, old, (x,))
        assert y.shape == expected.shape
    flat = torch.ones(2, 4, *(12,) * site.geometry.dims)
    inner = (..., *[slice(2, -2)] * site.geometry.dims)
    y = made.completed(site, functional_call(block, new, (flat,)))
    torch.testing.assert_close(y[inner], functional_call(module, old, (flat,))[inner])


@pytest.mark.parametrize(
    "params",
    [{"filter": 4}, {"filter": 7}, {"filter": "3"}, {"pad": "circular"}, {"position": "norm"}, {"taps": 3}],
)
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AntiAliasParams(**params)


class Network(nn.Module):
    """A stem with an activation of its own, a block whose activation is shared, a shortcut, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Identity(), nn.SiLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.down, self.relu = nn.Conv2d(8, 8, 1, 2), nn.ReLU()
        self.twice = nn.Conv2d(8, 8, 3, 2, 1)
        self.one, self.two = nn.ReLU(), nn.ReLU()
        self.last = nn.AvgPool2d(2, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.stem(x))
        x = self.relu(self.conv2(self.relu(self.conv1(x))) + self.down(x))
        x = self.one(self.twice(x)) + 2 * self.two(self.twice(x))
        return self.last(x)  # type: ignore[no-any-return]


def planned(model: nn.Module, **params: Any) -> Plan:  # noqa: ANN401 - parameters of the rewrite
    book = load_rules("blurpool")
    rules = tuple(
        rule if rule.keeps else rule.model_copy(update={"params": rule.params | params}) for rule in book.rules
    )
    return plan_model(model, survey(model, INPUTS), book.model_copy(update={"rules": rules}), inputs=INPUTS)


def test_where_the_blur_comes() -> None:
    model = Network().eval()
    plan = planned(model)
    by_name = {d.site.name: d for d in plan.decisions}
    assert {d.action for d in plan.decisions} == {"applied"}
    assert [(a.path, a.sites) for a in plan.adjustments] == [("stem.3", ("stem.0",))]
    assert not by_name["stem.0"].reason
    for name in ("conv1", "twice"):  # an activation that runs twice, a convolution that runs twice
        assert by_name[name].params["position"] == "conv"
        assert (
            by_name[name].reason
            == "no activation of its own comes after it: the blur comes directly behind the convolution"
        )
    converted = apply(model, plan)
    kinds = {
        path: type(converted.get_submodule(path)) for path in ("stem.0", "stem.3", "pool", "conv1", "down", "last")
    }
    assert kinds == {
        "stem.0": UnstridedConv, "stem.3": BlurredActivation, "pool": BlurredMaxPool, "conv1": BlurredConv,
        "down": BlurredConv, "last": BlurredAvgPool,
    }  # fmt: skip
    x = torch.randn(2, 3, 33, 36)
    y = converted(x)
    assert y.shape == model(x).shape
    assert converted.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in converted.state_dict().items())


def test_a_saved_plan_makes_the_same_network() -> None:
    model = Network().eval()
    plan = planned(model, filter=5, pad="zeros")
    again = Plan.model_validate_json(plan.model_dump_json())
    x = torch.randn(2, 3, 33, 36)
    expected = apply(model, plan)(x)
    assert torch.equal(apply(model, again)(x), expected)
    bare = apply_structure(Network().eval(), again)
    bare.load_state_dict(map_weights(model.state_dict(), again))
    assert torch.equal(bare(x), expected)
    assert not torch.equal(apply(model, planned(model))(x), expected)


def test_the_proof_of_a_site_has_its_blur() -> None:
    model = Network()
    checks = prove_sites(model, planned(model), seed=0)
    assert {check.outcome for check in checks} == {"measured"}
    # Of the right size, another function: without the blur the sizes differ, and the error is infinite.
    assert all(check.value is not None and 0.05 < check.value < 10 for check in checks)


def test_position_conv_leaves_activations_alone() -> None:
    model = Network()
    plan = planned(model, position="conv")
    assert not plan.adjustments
    assert type(apply(model, plan).stem[0]) is BlurredConv  # type: ignore[index]


def test_norms_that_run_an_activation() -> None:
    from timm.layers import BatchNormAct2d

    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), BatchNormAct2d(8)).eval()
    plan = planned(model)
    assert [a.path for a in plan.adjustments] == ["1.act"]
    x = torch.randn(2, 3, 33, 36)
    assert apply(model, plan)(x).shape == model(x).shape


def test_a_conv_whose_output_is_read_elsewhere_too() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.act(y) + y  # type: ignore[no-any-return]

    model = Read()
    plan = planned(model)
    assert not plan.adjustments
    assert apply(model, plan)(torch.randn(2, 3, 33, 36)).shape == (2, 8, 17, 18)
