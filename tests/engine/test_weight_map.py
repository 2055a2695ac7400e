"""The weights of the converted network from those of the original."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

from spdify.engine import apply, map_weights
from spdify.errors import PlanError
from tests.engine.networks import Adapted, Entangled, Net, Shared, randomised

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan

SHAPE = (1, 3, 33, 35)


@pytest.fixture
def net() -> nn.Module:
    return randomised(Net().double().eval())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Net, SHAPE),
        (Shared, (1, 4, 64, 64)),
        (Adapted, (1, 3, 32, 35)),
        (lambda: Entangled(pool_first=True), (1, 3, 32, 32)),
        (lambda: Entangled(pool_first=False), (1, 3, 32, 32)),
        (lambda: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2)), (1, 3, 32, 32)),
    ],
)
def test_names_and_shapes_are_those_of_the_converted_network(
    plan_for: Callable[..., Plan], make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = make()
    plan = plan_for(model, *shape)
    mapped, state = map_weights(model.state_dict(), plan), apply(model, plan).state_dict()
    assert {k: (t.shape, t.dtype) for k, t in mapped.items()} == {k: (t.shape, t.dtype) for k, t in state.items()}
    assert all(torch.equal(mapped[key], state[key]) for key in state)


def test_nothing_that_was_given_is_changed(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    state = net.state_dict()
    before = {key: tensor.clone() for key, tensor in state.items()}
    random = torch.get_rng_state()
    mapped = map_weights(state, plan)
    assert list(state) == list(before)
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), random), "a pure function draws no random numbers"
    assert mapped["head.weight"] is state["head.weight"], "what is not converted is passed on"


def test_another_checkpoint_of_the_same_network(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    converted = apply(net, plan)
    other = randomised(copy.deepcopy(net), seed=7)
    converted.load_state_dict(map_weights(other.state_dict(), plan))
    x = torch.randn(2, *SHAPE[1:], dtype=torch.float64)
    torch.testing.assert_close(converted(x), other(x), rtol=1e-10, atol=1e-10)


def test_gradients_go_through_the_map(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    converted = apply(net, plan)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    mapped = map_weights({**net.state_dict(), **leaves}, plan)
    x = torch.randn(2, *SHAPE[1:], dtype=torch.float64)
    found = torch.autograd.grad(functional_call(converted, mapped, (x,)).square().sum(), list(leaves.values()))
    wanted = torch.autograd.grad(functional_call(net, leaves, (x,)).square().sum(), list(leaves.values()))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


def test_on_the_meta_device(plan_for: Callable[..., Plan], net: nn.Module) -> None:
    plan = plan_for(net, *SHAPE)
    expected = {key: tensor.shape for key, tensor in map_weights(net.state_dict(), plan).items()}
    mapped = map_weights({key: tensor.to("meta") for key, tensor in net.state_dict().items()}, plan)
    assert {key: tensor.shape for key, tensor in mapped.items()} == expected
    assert {tensor.device.type for tensor in mapped.values()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_is_kept(plan_for: Callable[..., Plan], net: nn.Module, dtype: torch.dtype) -> None:
    plan = plan_for(net, *SHAPE)
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in net.state_dict().items()}
    mapped = map_weights(state, plan)
    assert {t.dtype for key, t in mapped.items() if "num_batches" not in key} == {dtype}
    assert mapped["stem.1.num_batches_tracked"].dtype == torch.int64


def test_each_part_of_a_model_keeps_its_own_dtype(plan_for: Callable[..., Plan]) -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2)), nn.Sequential(nn.Conv2d(4, 4, 1, 2), nn.AvgPool2d(2))
    )
    plan = plan_for(model, 1, 3, 64, 64)
    model[1].to(torch.bfloat16)
    mapped = map_weights(model.state_dict(), plan)
    assert {t.dtype for key, t in mapped.items() if key.startswith("0.")} == {torch.float32}
    assert {t.dtype for key, t in mapped.items() if key.startswith("1.")} == {torch.bfloat16}


def test_a_bias_in_another_dtype_stays_so(plan_for: Callable[..., Plan]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
    plan = plan_for(model, 1, 3, 16, 16)
    state = model.half().state_dict()
    state["0.bias"] = state["0.bias"].float()
    mapped = map_weights(state, plan)
    assert (mapped["0.weight"].dtype, mapped["0.bias"].dtype) == (torch.float16, torch.float32)


def test_extra_state_is_passed_on(plan_for: Callable[..., Plan]) -> None:
    class Counter(nn.Identity):
        def get_extra_state(self) -> Any:  # noqa: ANN401 - anything
            return {"calls": 3}

        def set_extra_state(self, state: Any) -> None:  # noqa: ANN401 - anything
            self.calls = state["calls"]

    model = nn.Sequential(Counter(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, 2))
    plan = plan_for(model, 1, 3, 16, 16)
    mapped = map_weights(model.state_dict(), plan)
    assert mapped["0._extra_state"] == {"calls": 3}  # type: ignore[comparison-overlap] - not a tensor, as said
    assert set(mapped) == set(apply(model, plan).state_dict())


def test_what_the_block_has_no_use_for_is_dropped(plan_for: Callable[..., Plan]) -> None:
    model = Entangled(pool_first=True)
    mapped = map_weights(model.state_dict(), plan_for(model, 1, 3, 32, 32))
    assert "conv.unused" in model.state_dict()
    assert [key for key in mapped if key.startswith("conv.")] == ["conv.weight", "conv.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("stage.conv.weight"), r"stage.conv.weight: expected .*\(12, 8, 3, 3\), got none"),
        (lambda s: s.update({"stem.0.bias": torch.zeros(9)}), r"stem.0.bias: expected .*\(8,\), got \(9,\)"),
        (lambda s: s.update({"stage.shortcut.weight": torch.zeros(12, 8, 3, 3)}), r"\(12, 8, 1, 1\), got"),
        (lambda s: [s.update({f"module.{key}": s.pop(key)}) for key in list(s)], "got none"),
    ],
)
def test_weights_of_another_network_are_refused(
    plan_for: Callable[..., Plan], net: nn.Module, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    state = dict(net.state_dict())
    change(state)
    with pytest.raises(PlanError, match=message):
        map_weights(state, plan_for(net, *SHAPE))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("std.gain", r"std.gain: expected .*\(6, 1, 1, 1\), got \(2,\)"),
        ("cond.weight", r"cond.weight: expected .*\(4, 432\), got \(2,\)"),
        ("cond.bias", r"cond.bias: expected .*\(4, 8\), got \(2,\)"),
    ],
)
def test_tensors_beside_weight_and_bias_are_looked_at(plan_for: Callable[..., Plan], name: str, message: str) -> None:
    model = Adapted()
    state = dict(model.state_dict()) | {name: torch.zeros(2)}
    with pytest.raises(PlanError, match=message):
        map_weights(state, plan_for(model, 1, 3, 32, 32))


def test_another_checkpoint_of_a_network_of_adapted_classes(plan_for: Callable[..., Plan]) -> None:
    model = randomised(Adapted().double())
    plan = plan_for(model, 1, 3, 33, 35)
    converted = apply(model, plan)
    other = randomised(copy.deepcopy(model), seed=7)
    converted.load_state_dict(map_weights(other.state_dict(), plan))
    for size in ((33, 35), (34, 33), (32, 32)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(converted(x), other(x), rtol=1e-10, atol=1e-10)
