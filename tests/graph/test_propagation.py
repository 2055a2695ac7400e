"""Where channels that became more go, module by module, and what stops them; the function stays either way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.engine import apply, make_plan, map_weights
from spdify.graph import fingerprint, survey
from spdify.records import Inputs, InputSpec, Plan
from spdify.rulebook import load_rules

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 33, 35)),))


class Net(nn.Module):
    """Two strided convolutions, something, and what reads it."""

    def __init__(self, middle: nn.Module, reader: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.site, self.middle, self.reader = nn.Conv2d(8, 16, 3, 2, 1), middle, reader or nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.middle(self.site(self.stem(x))))


class Rows(Net):
    """The same over one axis."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__(middle, nn.Conv1d(16, 5, 1))
        self.stem, self.site = nn.Conv1d(3, 8, 3, 2, 1), nn.Conv1d(8, 16, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(2))


class Volume(Rows):
    """The same over three axes."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__(middle)
        self.stem, self.site, self.reader = nn.Conv3d(3, 8, 3, 2, 1), nn.Conv3d(8, 16, 3, 2, 1), nn.Conv3d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return Net.forward(self, x.unflatten(2, (-1, 3))[:, :, :9])


class Of(nn.Module):
    """A function of a map and of modules."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class With(nn.Module):
    """A function of a map and a tensor of one number per channel: a parameter, a buffer, or a mere attribute."""

    def __init__(self, function: Callable[..., Tensor], kind: str = "parameter", shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.function, value = function, 0.5 + torch.rand(shape or (1, 16, 1, 1))
        if kind == "buffer":
            self.register_buffer("scale", value)
        else:
            self.scale = nn.Parameter(value) if kind == "parameter" else value

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.scale)


def hooked(module: nn.Module) -> nn.Module:
    """Give a module that mixes channels by a hook."""
    module.register_forward_hook(lambda _module, _inputs, out: out.softmax(1))
    return module


def before(module: nn.Module) -> nn.Module:
    """Give a module whose channels are mixed before it."""
    module.register_forward_pre_hook(lambda _module, inputs: (inputs[0].roll(1, 1),))
    return module


def patched(module: nn.Module) -> nn.Module:
    module.forward = lambda x: x.softmax(1)
    return module


def eca(x: Tensor, conv: nn.Module) -> Tensor:
    return x * conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1).sigmoid()


def planned(model: nn.Module, rules: str = "spd-released") -> Plan:
    return make_plan(survey(model, INPUTS), load_rules(rules), fingerprint=fingerprint(model), inputs=INPUTS)


def decision_reason(plan: Plan, site: str = "site") -> str:
    """Give why the channels of a site are brought back; empty where they go on."""
    decision = next(d for d in plan.applied if d.site.name == site)
    assert (decision.leaves is None) is bool(decision.reason)
    return decision.reason


def roles(plan: Plan) -> dict[str, str]:
    """Give the modules that are changed, and what they do with the channels."""
    return {a.path: a.role for a in plan.adjustments if a.tensors or a.numbers}


def compare(model: nn.Module, plan: Plan) -> None:
    """Compare outputs in both modes, batch 2, float64, random statistics, after a step of training."""
    generator = torch.Generator().manual_seed(3)
    model = model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running" in name or tensor.dim() == 1:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    converted = apply(model, plan)
    for sizes in ((33, 35), (36, 39)):
        x = torch.randn(2, 3, *sizes, generator=generator, dtype=torch.float64)
        for training in (True, False):
            expected, actual = model.train(training)(x), converted.train(training)(x)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
    mapped = map_weights(model.state_dict(), plan)
    assert all(torch.equal(mapped[name], tensor) for name, tensor in apply(model, plan).state_dict().items())


GOES_ON: dict[str, tuple[nn.Module, dict[str, str]]] = {
    "a parameter by keyword": (Net(With(lambda x, p: torch.mul(x, other=p))), {"middle": "follower"}),
    "all by keyword": (Net(With(lambda x, p: torch.mul(input=x, other=p))), {"middle": "follower"}),
    "a buffer": (Net(With(torch.mul, "buffer")), {"middle": "follower"}),
    "a mere tensor": (Net(With(lambda x, p: x * p.to(x.dtype), "tensor")), {"middle": "follower"}),
    "a parameter without batch": (Net(With(torch.add, shape=(16, 1, 1))), {"middle": "follower"}),
    "one number for all": (Net(With(lambda x, p: x.abs().clamp(min=1e-3).pow(p), shape=(1,))), {}),
    "a gate by keyword": (
        Net(Of(lambda x, c: torch.mul(x, other=c(x.mean((2, 3), keepdim=True))), nn.Conv2d(16, 16, 1))),
        {"middle.parts.0": "consumer"},
    ),
    "in place": (Net(Of(lambda x: F.relu(x, inplace=True).mul_(2).add_(1) + x)), {}),
    "modules in place": (Net(nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(inplace=True))), {"middle.0": "carrier"}),
    "a norm that runs twice": (Net(Of(lambda x, n: n(n(x)), nn.BatchNorm2d(16))), {"middle.parts.0": "carrier"}),
    "padding": (Net(Of(lambda x: F.pad(x, (1, 0, 2, 1)))), {}),
    "a row of the map": (Net(Of(lambda x: x[:, :, 0, :, None])), {}),
    "cat from behind": (Net(Of(lambda x: torch.cat((x, x.relu()), dim=-3)), nn.Conv2d(32, 5, 1)), {}),
    "1d batch norm": (Rows(nn.BatchNorm1d(16)), {"middle": "carrier"}),
    "1d instance norm": (Rows(nn.InstanceNorm1d(16, affine=True)), {"middle": "carrier"}),
    "1d group norm": (Rows(nn.GroupNorm(4, 16)), {"middle": "carrier"}),
    "1d max pool": (Rows(nn.MaxPool1d(3, 1, 1)), {}),
    "3d batch norm": (Volume(nn.BatchNorm3d(16)), {"middle": "carrier"}),
    "3d depthwise": (Volume(nn.Conv3d(16, 16, 3, padding=1, groups=16)), {"middle": "carrier"}),
}

STOPS: dict[str, tuple[nn.Module, str]] = {
    "hook on an activation": (Net(hooked(nn.ReLU())), "forward hooks"),
    "hook on nothing": (Net(hooked(nn.Identity())), "forward hooks"),
    "hook before a pool": (Net(before(nn.MaxPool2d(3, 1, 1))), "forward hooks"),
    "hook before flatten": (
        Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), before(nn.Flatten())), nn.Linear(16, 5)), "forward hooks",
    ),
    "forward replaced": (Net(patched(nn.ReLU())), "forward was replaced"),
    "exponents per channel": (Net(With(lambda x, p: (x.abs() + 0.1) ** p)), "takes a second tensor"),
    "bounds per channel": (Net(With(lambda x, p: torch.clamp(x, min=p))), "takes a second tensor"),
    "a tensor by keyword": (
        Net(Of(lambda x: x * torch.mean(input=x, dim=(2, 3), keepdim=True))), "not known to work on each channel",
    ),
    "channels moved by padding": (Net(Of(lambda x: F.pad(x, (0, 0, 0, 0, 1, -1)))), "changes the channel axis"),
    "a gate along positions": (
        Net(Of(lambda x, c, n: x * n(F.adaptive_avg_pool2d(c(x), (1, 3))), nn.Conv2d(16, 16, 1), nn.Linear(3, 1))),
        "does not put out the channels along the last axis",
    ),
    "a constant per channel": (
        Net(Of(lambda x: x * torch.linspace(1, 2, 16)[:, None, None])), "makes a constant with as many channels",
    ),
    "a parameter that is reshaped": (Net(With(lambda x, p: x * p.view(1, -1, 1, 1))), "view in middle"),
    "2d pool of rows": (Rows(nn.AvgPool2d(3, 1, 1)), "an axis of a map without batch"),
    "2d padding of rows": (Rows(nn.ZeroPad2d((0, 0, 1, -1))), "an axis of a map without batch"),
    "2d pool of rows in code": (Rows(Of(lambda x: F.max_pool2d(x, 3, 1, 1))), "changes the channel axis"),
    "channels turned round": (Net(Of(lambda x: x.flip(1))), "flip"),
    "ECA": (Net(Of(eca, nn.Conv1d(1, 1, 3, padding=1))), "unsqueeze"),
    "a fixed shape": (Net(Of(lambda x: x.mean((2, 3)).reshape(-1, 16)), nn.Linear(16, 5)), "fixes the shape"),
    "transposed convolution": (Net(nn.ConvTranspose2d(16, 16, 2, 2)), "ConvTranspose2d is not known"),
    "unshuffle": (Net(nn.PixelUnshuffle(1)), "PixelUnshuffle is not known"),
    "parametrized reader": (
        Net(nn.Identity(), nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 5, 1))), "Parametrized",
    ),
    "a norm of tokens": (
        Net(Of(lambda x, n: n(x.flatten(2).transpose(1, 2)).mean(1), nn.LayerNorm(16)), nn.Linear(16, 5)), "flatten",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOES_ON)
def test_channels_reach_exactly_these_modules(name: str) -> None:
    model, reached = GOES_ON[name]
    plan = planned(model)
    assert not decision_reason(plan)
    assert roles(plan) == {**reached, "reader": "consumer"}
    compare(model, plan)


@pytest.mark.parametrize("name", STOPS)
def test_channels_stop_and_nothing_else_is_touched(name: str) -> None:
    model, reason = STOPS[name]
    plan = planned(model)
    assert reason in decision_reason(plan)
    assert not plan.adjustments
    compare(model, plan)


@pytest.mark.parametrize(
    ("middle", "goes_on"),
    [(nn.Upsample(scale_factor=2), True), (With(torch.mul, "buffer"), True), (Of(lambda x: x * x), False)],
    ids=["upsampling", "scale", "square"],
)
def test_a_mean_goes_through_linear_code(middle: nn.Module, goes_on: bool) -> None:
    model = Net(nn.Sequential(nn.AvgPool2d(2), middle))
    plan = planned(model, "spd-fold")
    assert bool(decision_reason(plan, "middle.0")) is not goes_on
    compare(model, plan)


def test_a_stop_at_one_site_leaves_the_other_going() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.reader(self.site(x)) + self.last(self.norm(self.other(x)).softmax(1))

    model = Two(nn.Identity())
    model.other, model.norm, model.last = nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 5, 1)
    plan = planned(model)
    assert not decision_reason(plan)
    assert "softmax" in decision_reason(plan, "other")
    assert roles(plan) == {"reader": "consumer"}
    compare(model, plan)


def test_both_sites_stop_where_they_are_joined_and_cannot_go_on() -> None:
    class Joined(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.reader((self.site(x) + self.other(x)).softmax(1))

    model = Joined(nn.Identity())
    model.other = nn.Conv2d(8, 16, 3, 2, 1)
    plan = planned(model)
    assert all("softmax" in decision_reason(plan, site) for site in ("site", "other"))
    compare(model, plan)


def test_equal_changes_add_up_and_unequal_ones_do_not() -> None:
    class Sum(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.reader(self.site(x) + F.interpolate(self.other(x), size=self.site(x).shape[2:]))

    for stride, reason in ((2, ""), (3, "in different ways")):
        model = Sum(nn.Identity())
        model.other = nn.Conv2d(8, 16, 3, stride, 1)
        plan = planned(model)
        assert reason in decision_reason(plan)
        assert bool(decision_reason(plan)) is bool(reason)
        compare(model, plan)


def test_channels_that_are_spread_over_another_shape_stop() -> None:
    wide = Net(With(torch.mul))
    wide.site = nn.Conv2d(8, 1, 3, 2, 1)
    deep = Net(With(lambda x, p: (x.mean((2, 3)) * p)[0], shape=(1, 1, 16)), nn.Linear(16, 5))
    for model in (wide, deep):
        plan = planned(model)
        assert "spreads the channels over another shape" in decision_reason(plan)
        compare(model, plan)


def test_a_reader_may_run_twice_and_what_follows_it_stays() -> None:
    model = Net(Of(lambda x, c: c(x) + c(x.relu()), nn.Conv2d(16, 4, 1)), nn.Conv2d(4, 5, 1))
    plan = planned(model)
    assert roles(plan) == {"middle.parts.0": "consumer"}
    compare(model, plan)


class Se(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


PIECES: tuple[Callable[[], nn.Module], ...] = (
    lambda: nn.BatchNorm2d(16),
    lambda: nn.GroupNorm(4, 16),
    lambda: nn.InstanceNorm2d(16, affine=True),
    lambda: nn.PReLU(16),
    lambda: nn.Hardswish(inplace=True),
    lambda: nn.Dropout(0.0),
    lambda: nn.AvgPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(2),
    lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.Upsample(scale_factor=2),
    lambda: nn.Conv2d(16, 16, 3, padding=1),
    lambda: nn.Conv2d(16, 16, 3, padding=1, groups=4),
    lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16),
    lambda: nn.Conv2d(16, 16, 3, 2, 1, groups=16),
    lambda: nn.Conv2d(16, 16, 3, 2, 1),
    Se,
    lambda: With(torch.mul),
    lambda: With(torch.add, "buffer"),
    lambda: Of(lambda x: x + x.relu()),
    lambda: Of(lambda x, c: x + c(x), nn.Conv2d(16, 16, 1)),
    lambda: Of(lambda x, c: c(torch.cat([x, F.gelu(x)], 1)), nn.Conv2d(32, 16, 1)),
    lambda: Of(lambda x, c: torch.cat([x, c(x)], 1)[:, :16], nn.Conv2d(16, 8, 1)),
    lambda: Of(lambda x: F.avg_pool2d(x, 3, 1, 1)),
    lambda: Of(lambda x: x - x.mean((2, 3), keepdim=True)),
    lambda: Of(eca, nn.Conv1d(1, 1, 3, padding=1)),
)


@pytest.mark.parametrize("rules", ["spd-released", "spd-fold"])
@pytest.mark.parametrize("seed", range(30))
def test_a_random_chain_is_exact_wherever_its_channels_go(rules: str, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = nn.Sequential(*(rng.choice(PIECES)() for _ in range(rng.randint(2, 5))))
        model = Net(middle) if rules == "spd-released" else Net(nn.Sequential(nn.AvgPool2d(2), *middle))
        plan = planned(model, rules)
        assert plan.applied
        compare(model, plan)
