"""Channels that leave sites: where they go, where they are brought back; the function stays either way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.engine import apply, map_weights, plan_model
from spdify.graph import survey
from spdify.records import Inputs, InputSpec, Plan
from spdify.rulebook import load_rules
from spdify.verification.compare import relative_error
from spdify.verification.randomised import randomise

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 33, 35)),))


def stem() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())


class Between(nn.Module):
    """A strided convolution, something, and what reads it."""

    def __init__(self, middle: nn.Module, reader: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.site, self.middle = stem(), nn.Conv2d(8, 16, 3, 2, 1), middle
        self.reader = reader or nn.Conv2d(16, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.middle(self.site(self.stem(x))))


class Of(nn.Module):
    """A function of a map."""

    def __init__(self, function: object, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class Squeeze(nn.Module):
    """A gate of two 1×1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class LinearGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 4, 1), nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.two(x), self.one(x), x.relu()], dim=1)


GOING_ON = {
    "batch norm": Between(nn.Sequential(nn.BatchNorm2d(16), nn.SiLU())),
    "group norm": Between(nn.GroupNorm(4, 16)),
    "instance norm": Between(nn.InstanceNorm2d(16, affine=True, track_running_stats=True)),
    "prelu": Between(nn.PReLU(16)),
    "dropout of nothing": Between(nn.Dropout(0.0)),
    "pools": Between(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1))),
    "upsampling": Between(nn.Upsample(scale_factor=2, mode="bilinear")),
    "depthwise": Between(nn.Conv2d(16, 16, 3, padding=1, groups=16)),
    "functional": Between(Of(lambda x: F.avg_pool2d(F.gelu(x), 2, 1))),
    "added to itself": Between(Of(lambda x: x + x.sigmoid() * 2 - 1)),
    "concatenated": Between(Branches(), nn.Conv2d(36, 5, 1)),
    "squeezed": Between(Squeeze()),
    "gated by linear": Between(LinearGate()),
    "scaled by a parameter": Between(Scaled()),
    "read by groups": Between(nn.Identity(), nn.Conv2d(16, 8, 3, groups=4)),
    "read by a depthwise pair": Between(nn.Identity(), nn.Conv2d(16, 32, 3, groups=16)),
    "pooled, flat, linear": Between(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(16, 5)),
    "a flat map, linear": Between(nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten()), nn.Linear(144, 5)),
    "flat by view": Between(Of(lambda x: x.mean((2, 3)).view(x.size(0), -1)), nn.Linear(16, 5)),
    "flat norm": Between(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(64)), nn.Linear(64, 5)),
    "sizes of the map": Between(Of(lambda x: F.interpolate(x, size=x.shape[2:], mode="nearest"))),
    "a chain of sites": Between(nn.Sequential(nn.Conv2d(16, 12, 3, 2, 1), nn.ReLU()), nn.Conv2d(12, 5, 1)),
    "a depthwise site after it": Between(nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.ReLU())),
}


def shuffle(x: Tensor) -> Tensor:
    return x.view(x.shape[0], 4, 4, x.shape[2], x.shape[3]).transpose(1, 2).flatten(1, 2)


BROUGHT_BACK = {
    "layer norm": (Between(Of(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(16))), "permute"),
    "channel shuffle": (Between(Of(shuffle)), "view"),
    "module of it": (Between(nn.ChannelShuffle(4)), "ChannelShuffle"),
    "number of channels": (Between(Of(lambda x: x / x.shape[1])), "reads the number of channels"),
    "softmax": (Between(nn.Softmax2d()), "Softmax2d"),
    "one channel picked": (Between(Of(lambda x: x[:, :4]), nn.Conv2d(4, 5, 1)), "picks channels"),
    "sum over channels": (Between(Of(lambda x: x.sum(1, keepdim=True)), nn.Conv2d(1, 5, 1)), "sums over channels"),
    "output": (Between(nn.Identity(), nn.Identity()), "output of the model"),
    "chunk": (Between(Of(lambda x: x.chunk(2, 1)[0]), nn.Conv2d(8, 5, 1)), "chunk"),
    "a map that stays": (
        Between(Of(lambda x, a: a(x) + x, nn.Conv2d(16, 16, 1))), "only gates follow",
    ),
    "unlike": (Between(Of(lambda x, a: x * a(x).mean((2, 3), keepdim=True), nn.Conv2d(16, 16, 1))), ""),
    "functional convolution": (Between(Of(lambda x, c: F.conv2d(x, c.weight), nn.Conv2d(16, 16, 1))), "conv2d"),
}  # fmt: skip


def planned(model: nn.Module, rules: str = "spd-released") -> Plan:
    return plan_model(model, survey(model, INPUTS), load_rules(rules), inputs=INPUTS)


def compare(model: nn.Module, plan: Plan) -> None:
    """Compare outputs in both modes, after a training step, at a size that the strides do not divide."""
    model = model.double()
    randomise(model, seed=1)
    converted = apply(model, plan)
    x = torch.randn(2, 3, 33, 35, dtype=torch.float64)
    for training in (True, False):
        expected, actual = model.train(training)(x), converted.train(training)(x)
        assert relative_error(expected, actual) < 1e-12
    mapped = map_weights(model.state_dict(), plan)
    for name, tensor in apply(model, plan).state_dict().items():
        assert torch.equal(mapped[name], tensor), name


@pytest.mark.parametrize("name", GOING_ON)
def test_channels_go_on(name: str) -> None:
    model = GOING_ON[name]
    plan = planned(model)
    by_name = {d.site.name: d for d in plan.applied}
    assert by_name["site"].leaves is not None, by_name["site"].reason
    assert by_name["site"].leaves.new == 64
    assert any(a.role == "consumer" for a in plan.adjustments)
    compare(model, plan)


@pytest.mark.parametrize("name", BROUGHT_BACK)
def test_channels_are_brought_back(name: str) -> None:
    model, reason = BROUGHT_BACK[name]
    plan = planned(model)
    by_name = {d.site.name: d for d in plan.applied}
    if name == "unlike":  # a consumer of the site makes the gate: both follow
        assert by_name["site"].leaves is not None
    else:
        assert by_name["site"].leaves is None
        assert reason in by_name["site"].reason
        assert by_name["site"].params["channels"] == "reduce"
    compare(model, plan)


def test_a_hook_or_a_shared_weight_stops_it() -> None:
    hooked = Between(nn.BatchNorm2d(16))
    hooked.middle.register_forward_hook(lambda _m, _i, out: out)
    assert "hooks" in next(d.reason for d in planned(hooked).applied if d.site.name == "site")
    shared = Between(nn.Identity())
    shared.other = nn.Conv2d(16, 5, 3)
    shared.other.weight = shared.reader.weight
    assert "shared" in next(d.reason for d in planned(shared).applied if d.site.name == "site")


def test_a_module_that_also_runs_with_other_channels_stops_it() -> None:
    class Twice(Between):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.reader(self.middle(self.site(x))) + self.middle(self.other(x)).mean()

    model = Twice(nn.BatchNorm2d(16))
    model.other = nn.Conv2d(8, 16, 1)
    plan = planned(model)
    assert "also runs with as many" in next(d.reason for d in plan.applied if d.site.name == "site")
    compare(model, plan)


@pytest.mark.parametrize(
    ("middle", "goes_on"),
    [
        (nn.Identity(), True),
        (nn.AvgPool2d(3, 1, 1), True),
        (nn.Conv2d(16, 16, 3, padding=1, groups=16), True),
        (nn.BatchNorm2d(16), False),
        (nn.ReLU(), False),
        (nn.MaxPool2d(3, 1, 1), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_mean_goes_through_what_is_linear(middle: nn.Module, goes_on: bool) -> None:
    model = Between(nn.Sequential(nn.AvgPool2d(2), middle))
    plan = planned(model, "spd-fold")
    (decision,) = plan.applied
    assert (decision.leaves is not None) is goes_on
    if not goes_on:
        assert "not linear" in decision.reason
    compare(model, plan)


def test_a_site_that_only_training_reaches_is_followed_there() -> None:
    class Auxiliary(Between):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.reader(self.middle(self.site(x)))
            return y + self.side(self.site(x)).mean() if self.training else y

    model = Auxiliary(nn.BatchNorm2d(16))
    model.side = nn.Conv2d(16, 3, 1)
    plan = planned(model)
    assert {a.path for a in plan.adjustments if a.role == "consumer"} == {"reader", "side"}
    compare(model, plan)


def test_a_functional_call_that_becomes_a_block_stops_it() -> None:
    class Pooled(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.reader(F.avg_pool2d(self.site(self.stem(x)), 2))

    model = Pooled(nn.Identity())
    plan = planned(model)
    assert "becomes a block" in next(d.reason for d in plan.applied if d.site.name == "site")
    compare(model, plan)


def test_a_site_that_runs_twice_with_other_channels_is_brought_back() -> None:
    class Again(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.reader(self.site(self.site(self.stem(x))))

    model = Again(nn.Identity(), nn.Conv2d(8, 5, 1))
    model.site = nn.Conv2d(8, 8, 3, 2, 1)
    plan = planned(model)
    assert "also runs with as many" in next(d.reason for d in plan.applied if d.site.name == "site")
    compare(model, plan)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("running_mean", "its running_mean is read from outside"), ("weight", "also runs with as many")],
)
def test_tensors_of_a_carrier_that_other_code_reads_stop_it(name: str, reason: str) -> None:
    class Reads(Between):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + getattr(self.middle, name).mean() if self.training else y

    model = Reads(nn.BatchNorm2d(16))
    plan = planned(model)
    assert reason in next(d.reason for d in plan.applied if d.site.name == "site")
    compare(model, plan)


class Conv(nn.Module):
    """Convolution, norm and activation in one, of the name by which spd-released knows them."""

    def __init__(self, *window: int, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(*window), norm(window[1]), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


def units(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(Conv(3, 8, 3, 2, 1), Conv(8, 16, 3, 2, 1, norm=norm), Conv(16, 6, 3, 1, 1))


def test_space_to_depth_after_a_unit_has_its_phases_share_the_norm() -> None:
    model = units()
    plan = planned(model)
    model.double()
    randomise(model, seed=0)
    converted = apply(model, plan)
    assert type(converted[1].bn).__name__ == "SPDBatchNorm2d"
    assert converted[1].bn.weight.shape == (16,)
    assert converted[2].conv.in_channels == 64
    x = torch.randn(2, 3, 34, 36, dtype=torch.float64)
    assert relative_error(model.eval()(x), converted.eval()(x)) < 1e-12
    grown = sum(p.numel() for p in converted.parameters()) - sum(p.numel() for p in model.parameters())
    assert grown == 3 * 16 * 6 * 9 + 8 * 3 * (4 * 2 * 2 - 9)  # what reads four phases; the stem's larger kernel


def test_in_training_a_shared_norm_sees_all_positions() -> None:
    model = units().train()
    converted = apply(model, planned(model)).double()
    model.double()
    x = torch.randn(2, 3, 34, 36, dtype=torch.float64)
    assert relative_error(model(x), converted(x)) > 1e-6
    assert not torch.allclose(model[1].bn.running_mean, converted[1].bn.running_mean)


def test_a_norm_that_cannot_be_shared_stops_the_channels() -> None:
    plan = planned(units(norm=nn.SyncBatchNorm))
    decision = plan.applied[1]
    assert decision.leaves is None
    assert "only a torch.nn.BatchNorm2d" in decision.reason


def test_norms_without_statistics_are_not_shared() -> None:
    model = units()
    model[1].bn = nn.BatchNorm2d(16, track_running_stats=False)
    decision = planned(model).applied[1]
    assert decision.leaves is None
    assert "without running statistics" in decision.reason


class Closed(nn.Module):
    """Its code hangs on numbers; what is in it runs in the trunk as well."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), shared, nn.Conv2d(8, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if x.sum() > -1e9 else x


class SharedWithAClosedOne(nn.Module):
    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 8, 3, 2, 1), shared
        self.closed = Closed(shared)

    def forward(self, x: Tensor) -> Tensor:
        return self.closed(self.shared(self.first(x)))


@pytest.mark.parametrize("shared", [nn.SiLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)], ids=lambda m: type(m).__name__)
def test_what_a_closed_module_shares_with_others_is_one_module(shared: nn.Module) -> None:
    model = SharedWithAClosedOne(shared)
    plan = planned(model)
    assert plan.applied[1].site.path == "closed.block.0"
    assert (plan.applied[1].leaves is not None) == isinstance(shared, nn.SiLU)
    randomise(model.double(), seed=0)
    x = torch.randn(2, 3, 34, 36, dtype=torch.float64)
    assert relative_error(model.eval()(x), apply(model, plan).eval()(x)) < 1e-12
