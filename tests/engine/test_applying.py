"""From a model and a plan to the converted model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from torch import nn

from spdify.blocks import (
    SPDAvgPool,
    SPDCondConv,
    SPDConv,
    SPDMaxPool,
    SPDPerChannels,
    SPDPointwiseConv,
    SPDStdConv,
    SPDStdPointwiseConv,
)
from spdify.engine import apply, apply_lazily, map_weights, rebuild
from spdify.errors import PlanError, RulebookError
from spdify.graph import fingerprint
from spdify.records import Plan
from tests.engine.networks import Adapted, Entangled, Net, Shared, randomised
from tests.versions import needs_const_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (1, 3, 33, 35)


@pytest.fixture
def net() -> nn.Module:
    return randomised(Net().double().eval())


def assert_same(a: nn.Module, b: nn.Module, *size: int, dtype: torch.dtype = torch.float64) -> None:
    """Hold that two models agree on sizes with and without remainders."""
    for more in (0, 1, 2):
        x = torch.randn(2, size[0], *(n + more for n in size[1:]), dtype=dtype)
        torch.testing.assert_close(a(x), b(x), rtol=1e-10, atol=1e-10)


def test_the_converted_model_is_the_users_class(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    converted = apply(net, plan_for(net, *SHAPE))
    assert type(converted) is Net
    kinds = {name: type(converted.get_submodule(name)) for name in ("stem.0", "stage.shortcut", "pool", "down")}
    assert kinds == {"stem.0": SPDConv, "stage.shortcut": SPDPointwiseConv, "pool": SPDMaxPool, "down": SPDAvgPool}
    assert_same(net, converted, *SHAPE[1:])
    x = torch.randn(2, *SHAPE[1:], dtype=torch.float64)
    torch.testing.assert_close(converted.forward_features(x), net.forward_features(x))
    assert {name for name, _ in net.named_parameters()} <= {name for name, _ in converted.named_parameters()}


def test_the_same_in_training(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    net.train()
    converted = apply(net, plan_for(net, *SHAPE))
    assert all(module.training for module in converted.modules())
    x = torch.randn(4, *SHAPE[1:], dtype=torch.float64)
    a, b = net(x), converted(x)
    torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(converted.get_buffer("stem.1.running_var"), net.get_buffer("stem.1.running_var"))
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(converted.head.weight.grad, net.head.weight.grad)
    torch.testing.assert_close(converted.stage.shortcut.weight.grad, net.stage.shortcut.weight.grad)


def test_the_callers_model_is_not_changed(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    calls: list[str] = []
    net.head.register_forward_hook(lambda *_: calls.append("head"))
    net.stem.eval()
    net.stage.train()
    net.head.weight.requires_grad_(False)
    plan = plan_for(net, *SHAPE)
    tensors = {key: (tensor.data_ptr(), tensor.clone()) for key, tensor in net.state_dict().items()}
    modules = dict(net.named_modules())
    flags = {name: p.requires_grad for name, p in net.named_parameters()}
    modes = {name: module.training for name, module in modules.items()}
    random = torch.get_rng_state()

    converted = apply(net, plan)
    assert torch.equal(torch.get_rng_state(), random)
    with torch.no_grad():
        for tensor in converted.state_dict().values():
            tensor.zero_()

    assert dict(net.named_modules()) == modules
    assert {name: p.requires_grad for name, p in net.named_parameters()} == flags
    assert {name: module.training for name, module in net.named_modules()} == modes
    for key, tensor in net.state_dict().items():
        assert tensor.data_ptr() == tensors[key][0]
        assert torch.equal(tensor, tensors[key][1]), f"{key} is shared with the converted model"
    assert len(net.head._forward_hooks) == 1
    calls.clear()
    converted(torch.randn(2, *SHAPE[1:], dtype=torch.float64))
    assert calls == ["head"], "hooks of what is not converted go along"


def test_each_module_keeps_its_mode(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    net.train()
    net.stem.eval()
    converted = apply(net, plan_for(net, *SHAPE))
    assert not any(module.training for module in converted.stem.modules())
    assert all(module.training for module in converted.pool.modules())


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2)), "another class"),
        (lambda: setattr(net := Net(), "head", nn.Linear(12, 6)) or net, "another head"),
        (lambda: setattr(net := Net(), "pool", nn.MaxPool2d(2)) or net, "another window"),
    ],
)
def test_another_model_is_refused(
    plan_for: Callable[..., Plan], net: nn.Module, other: Callable[[], nn.Module], what: str
) -> None:
    with pytest.raises(PlanError, match="expected structure"):
        apply(other(), plan_for(net, *SHAPE))
    assert what


def test_a_plan_from_a_file_gives_the_same_network(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    again = Plan.model_validate_json(plan.model_dump_json())
    a, b = apply(net, plan).state_dict(), apply(net, again).state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_plan_of_a_rewrite_that_is_not_there(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    gone = plan.decisions[0].model_copy(update={"rewrite": "replace-with-magic"})
    with pytest.raises(RulebookError, match="replace-with-magic"):
        apply(net, plan.model_copy(update={"decisions": (gone,)}))
    none = plan.decisions[0].model_copy(update={"rewrite": None})
    with pytest.raises(PlanError, match="names no rewrite"):
        apply(net, plan.model_copy(update={"decisions": (none,)}))


def test_nothing_applied_is_a_copy(net: nn.Module, plan_for: Callable[..., Plan]) -> None:
    converted = apply(net, plan_for(net, *SHAPE).model_copy(update={"decisions": ()}))
    assert fingerprint(converted) == fingerprint(net)
    assert converted is not net


def test_a_module_under_two_names_becomes_one_block(plan_for: Callable[..., Plan]) -> None:
    model = randomised(Shared().double())
    converted = apply(model, plan_for(model, 1, 4, 64, 64))
    assert converted.a is converted.b
    assert converted.again is converted.inner[0]
    assert isinstance(converted.a, SPDConv)
    assert isinstance(converted.again, SPDAvgPool)
    assert_same(model, converted, 4, 64, 65)
    assert len(list(converted.parameters())) == 3


@pytest.mark.parametrize("pool_first", [False, True])
def test_a_module_inside_a_replaced_one(plan_for: Callable[..., Plan], *, pool_first: bool) -> None:
    model = randomised(Entangled(pool_first=pool_first).double())
    converted = apply(model, plan_for(model, 1, 3, 32, 32))
    assert_same(model, converted, 3, 32, 33)
    assert not list(converted.conv.children())


def test_what_is_frozen_stays_frozen(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    net.requires_grad_(False)
    converted = apply(net, plan_for(net, *SHAPE))
    assert not [name for name, p in converted.named_parameters() if p.requires_grad]


def test_what_is_trained_stays_trained(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    net.stem.requires_grad_(False)
    net.stage.conv.weight.requires_grad_(False)
    net.stage.shortcut.bias.requires_grad_(False)
    converted = apply(net, plan_for(net, *SHAPE))
    flags = {name: p.requires_grad for name, p in converted.named_parameters()}
    assert {name for name, trained in flags.items() if not trained} == {
        "stem.0.weight",
        "stem.0.bias",
        "stem.1.weight",
        "stem.1.bias",
        "stage.conv.weight",
        "stage.shortcut.bias",
    }


def test_a_pool_in_a_frozen_part_is_frozen(plan_for: Callable[..., Plan]) -> None:
    model = nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), "head": nn.Conv2d(4, 2, 1)})
    whole = nn.Sequential(model["body"], model["head"])
    model["body"].requires_grad_(False)
    converted = apply(whole, plan_for(whole, 1, 3, 17, 17))
    assert {name for name, p in converted.named_parameters() if p.requires_grad} == {"1.weight", "1.bias"}


def test_a_frozen_weight_with_a_trained_bias(plan_for: Callable[..., Plan]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, 2))
    model[0].weight.requires_grad_(False)
    converted = apply(model, plan_for(model, 1, 3, 16, 16))
    flags = {name: p.requires_grad for name, p in converted.named_parameters()}
    assert flags == {"0.weight": False, "0.bias": True, "0.phase_weight": False}


def test_dtype_and_device_are_those_of_each_part(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    half = apply(copy.deepcopy(net).to(torch.bfloat16), plan)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half(torch.randn(2, *SHAPE[1:], dtype=torch.bfloat16)).dtype == torch.bfloat16
    nowhere = apply(copy.deepcopy(net).to("meta"), plan)
    assert {t.device.type for t in nowhere.state_dict().values()} == {"meta"}
    assert nowhere(torch.randn(2, *SHAPE[1:], dtype=torch.float64, device="meta")).shape == (2, 5)


def test_under_a_device_context(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    with torch.device("meta"):
        converted = apply(net, plan)
    assert_same(net, converted, *SHAPE[1:])


class Remembers(nn.Module):
    """Keeps what it computed, with its history; such a model cannot be deep-copied as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.last: torch.Tensor | None = None
        self.cache: dict[str, list[torch.Tensor]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.conv(x)
        self.cache["maps"] = [self.last]
        return self.last


def test_a_model_that_has_run_with_gradients(plan_for: Callable[..., Plan]) -> None:
    model = Remembers().double()
    y = model(torch.randn(2, 3, 9, 9, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    converted = apply(model, plan_for(model, 1, 3, 16, 16))
    assert model.last is y
    assert y.grad_fn is not None
    assert_same(model, converted, 3, 16, 17)


def test_rebuild_gives_the_structure_without_weights(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    skeleton = copy.deepcopy(net)
    rebuild(skeleton, plan)
    expected = apply(net, plan)
    assert fingerprint(skeleton) == fingerprint(expected)
    assert {name for name, p in skeleton.named_parameters() if p.is_meta} == {
        name
        for name, _ in expected.named_parameters()
        if name.startswith(("stem.0", "pool", "stage.conv", "stage.sh", "down"))
    }
    skeleton.load_state_dict(map_weights(net.state_dict(), plan), assign=True)
    assert_same(net, skeleton, *SHAPE[1:])


def test_rebuild_refuses_a_model_without_the_site(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    with pytest.raises(PlanError, match=r"there is no module 'stem\.0'"):
        rebuild(nn.Sequential(), plan_for(net, *SHAPE))


@pytest.mark.parametrize(("name", "sites"), [("resnet18", 8), ("mobilenetv3_small_100", 5)])
def test_models_of_timm(plan_for: Callable[..., Plan], name: str, sites: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    model = model.double().eval()
    plan = plan_for(model, 1, 3, 64, 64)
    assert len(plan.applied) == len(plan.decisions) == sites
    converted = apply(model, plan)
    assert type(converted) is type(model)
    for size in ((64, 64), (75, 97)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(converted(x), model(x), rtol=1e-9, atol=1e-9)
        assert model(x).abs().max() > 1e-3, "an output of zero proves nothing"
    assert converted.forward_features(x).shape == model.forward_features(x).shape
    converted.reset_classifier(3)
    assert converted(x).shape == (2, 3)
    mapped = map_weights(model.state_dict(), plan)
    assert set(mapped) == set(apply(model, plan).state_dict())


def test_classes_with_a_forward_of_their_own(plan_for: Callable[..., Plan]) -> None:
    model = randomised(Adapted().double())
    converted = apply(model, plan_for(model, 1, 3, 33, 35))
    assert {name: type(module) for name, module in converted.named_children() if name != "routing"} == {
        "same": SPDConv,
        "std": SPDStdConv,
        "short": SPDStdPointwiseConv,
        "blur": SPDConv,
        "pool": SPDPerChannels,
        "cond": SPDCondConv,
    }
    assert_same(model, converted, 3, 33, 35)
    kept = {name: p.shape for name, p in model.named_parameters() if name not in {"same.weight", "cond.weight"}}
    assert kept.items() <= {name: p.shape for name, p in converted.named_parameters()}.items()


def test_what_is_new_in_them_is_frozen_with_the_old_weight(plan_for: Callable[..., Plan]) -> None:
    model = Adapted()
    model.std.weight.requires_grad_(False)
    model.short.requires_grad_(False)
    converted = apply(model, plan_for(model, 1, 3, 33, 35))
    flags = {name: p.requires_grad for name, p in converted.named_parameters()}
    assert {name for name, flag in flags.items() if not flag} == {
        "std.weight", "std.phase_weight", "short.weight", "short.phase_weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name", "value", "words"),
    [
        ("std", "eps", 1e-2, "eps 0.01, planned 1e-06"),
        ("std", "scale", 2.0, "gain_scale 2.0, planned"),
        ("blur", "pad_mode", "constant", "padding_mode zeros, planned reflect"),
        ("cond", "dynamic_padding", False, "padding_mode zeros, planned same"),
    ],
)
def test_a_plan_made_for_other_constants_is_refused(
    plan_for: Callable[..., Plan], path: str, name: str, value: object, words: str
) -> None:
    """No tensor and no fingerprint shows them: the plan's own record does."""
    model = Adapted()
    plan = plan_for(model, 1, 3, 33, 35)
    other = Adapted()
    setattr(other.get_submodule(path), name, value)
    assert fingerprint(other) == plan.fingerprint
    with pytest.raises(PlanError, match=words):
        apply(other, plan)
    apply(Adapted(), plan)


def test_a_plan_of_before_there_were_adapters_is_read(plan_for: Callable[..., Plan]) -> None:
    model = Net()
    plan = plan_for(model, *SHAPE)
    old = plan.model_dump(mode="json")
    for decision in old["decisions"]:
        del decision["site"]["constants"], decision["site"]["channels"]
        decision["params"].pop("standardisation", None)
    replayed = apply(model, Plan.model_validate(old))
    assert replayed.state_dict().keys() == apply(model, plan).state_dict().keys()


def test_a_plan_with_constants_goes_through_json(plan_for: Callable[..., Plan]) -> None:
    model = Adapted()
    plan = plan_for(model, 1, 3, 33, 35)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@needs_const_addresses
def test_apply_copies_and_apply_lazily_does_when_one_is_written_to(
    plan_for: Callable[..., Plan], net: nn.Module
) -> None:
    plan = plan_for(net, *SHAPE)
    own = {name: t.const_data_ptr() for name, t in net.state_dict().items() if t.numel()}
    converted = apply_lazily(net, plan)
    copied, lazy = apply(net, plan).state_dict(), converted.state_dict()
    assert not {t.const_data_ptr() for t in copied.values()} & set(own.values())
    shared = {name for name, t in lazy.items() if t.const_data_ptr() == own.get(name)}
    sites = tuple(f"{path}." for d in plan.applied for path in d.site.block_paths)
    assert shared == {name for name in own if not name.startswith(sites)}
    assert all(torch.equal(lazy[name], t) for name, t in copied.items())
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(converted.parameters(), lr=1.0)
    converted.train()(torch.randn(2, *SHAPE[1:], dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert any(not torch.equal(converted.state_dict()[name], before[name]) for name in shared)
