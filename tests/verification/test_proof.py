"""Every kind of check passes on a good conversion and fails on a broken one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from spdify.engine import apply
from spdify.graph.trace import _Reader
from spdify.records import Measure
from spdify.rewrites import ReplaceAveragePool, ReplaceStridedConv
from spdify.verification import choose_level, failed, model_proof

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spdify.records import Check, Plan, Site

WHOLE = {"whole model, train", "whole model, eval", "statistics, train", "live sites", "gradients"}


def failing(checks: dict[str, Check]) -> set[str]:
    return {check.name for check in failed(tuple(checks.values()))}


def test_a_good_conversion_passes_everything(net: nn.Module, convert: Callable) -> None:
    checks = convert(net).prove()
    assert {check.outcome for check in checks.values()} == {"passed"}
    assert checks.keys() > WHOLE
    assert {"site stem.0", "site pool", "site branch.0", "site down.0"} < checks.keys()
    assert checks["whole model, eval"].value is not None
    assert checks["whole model, eval"].value < 1e-12


def test_the_caller_keeps_mode_weights_and_random_state(net: nn.Module, convert: Callable) -> None:
    conversion = convert(net.train())
    net.branch.eval()  # type: ignore[union-attr]
    state, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [m.training for m in net.modules()]
    converted_modes = [m.training for m in conversion.converted.modules()]
    conversion.prove()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in net.modules()] == modes
    assert [m.training for m in conversion.converted.modules()] == converted_modes
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())
    assert all(p.grad is None for p in [*net.parameters(), *conversion.converted.parameters()])


def test_proof_of_a_proof_is_the_same(net: nn.Module, convert: Callable) -> None:
    conversion = convert(net)
    assert conversion.prove() == conversion.prove()


@pytest.mark.parametrize("place", ["proof._run_copy", "comparison.Comparison._run_original", "liveness._judge_sites"])
def test_memory_that_runs_out_is_no_finding(
    place: str, net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    conversion = convert(net)
    monkeypatch.setattr(f"spdify.verification.{place}", starved)
    with pytest.raises(RuntimeError, match="allocate memory"):
        conversion.prove()


def broken_weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable:
    real = ReplaceStridedConv.weights

    def weights(self: ReplaceStridedConv, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return change(dict(real(self, site, old)))

    return weights


@pytest.mark.parametrize(
    "change",
    [
        lambda new: new | {"weight": new["weight"].roll(1, -1)},  # a tap moved
        lambda new: new | {"weight": new["weight"].roll(1, 1)},  # phases permuted
        lambda new: {name: t if name == "weight" else t * 0 for name, t in new.items()},  # bias dropped
    ],
)
def test_a_broken_weight_map_fails(
    change: Callable, net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReplaceStridedConv, "weights", broken_weights(change))
    checks = convert(net).prove()
    assert {"site stem.0", "own weights, float32"} <= failing(checks)
    assert {"whole model, eval"} <= failing(checks)
    assert "site down.0" not in failing(checks)


def test_a_broken_pool_fails(net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ReplaceAveragePool.weights
    monkeypatch.setattr(ReplaceAveragePool, "weights", lambda *args: {"weight": real(*args)["weight"] * 1.01})
    assert failing(convert(net).prove()) >= {"site down.0", "whole model, train", "whole model, eval"}


def corrupting(path: str, change: Callable[[nn.Module], None]) -> Callable[[nn.Module, Plan], nn.Module]:
    def corrupted(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        change(converted.get_submodule(path))
        return converted

    return corrupted


def one_tap(block: nn.Module) -> None:
    with torch.no_grad():
        block.weight.view(-1)[-1] += block.weight.std()  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("path", ["stem.0", "branch.0"])
def test_one_wrong_tap_in_one_site_fails_in_both_modes(
    path: str, net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_proof, "apply_lazily", corrupting(path, one_tap))
    assert failing(convert(net).prove()) == {"whole model, train", "whole model, eval", "statistics, train"}


def test_wrong_statistics_fail(net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Biased(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if self.training:
                self.running_mean += 1e-3
            return y

    def swap(norm: nn.Module) -> None:
        norm.__class__ = Biased

    monkeypatch.setattr(model_proof, "apply_lazily", corrupting("stem.1", swap))
    assert failing(convert(net).prove()) == {"statistics, train"}


class Muted(nn.Module):
    """One site that the output shows and one that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.unseen = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2, dilation=1, groups=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x) + x[:, :1, 1:-1:2, 1:-1:2] * 0 * self.unseen(x)


class MutedInput(Muted):
    """A site that reads zeros: its bias shows, its weight does not."""

    def __init__(self) -> None:
        super().__init__()
        self.unseen = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x) + self.unseen(x * 0)


@pytest.mark.parametrize("kind", [MutedInput, Muted])
def test_a_site_that_the_output_does_not_show_is_named(kind: type[nn.Module], convert: Callable) -> None:
    checks = convert(kind(), (3, 17, 17)).prove()
    live = checks["live sites"]
    assert live.outcome == "not run"
    assert live.detail.endswith("say nothing about unseen")
    assert "whole model, eval" not in failing(checks)


def test_a_block_that_cannot_learn_fails(net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Detached(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block, self.weight = block, block.weight

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.block(x)
            return y + 0 * x.sum()

    def detached(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        converted.branch[0] = Detached(converted.branch[0])  # type: ignore[index, operator, union-attr]
        return converted

    monkeypatch.setattr(model_proof, "apply_lazily", detached)
    checks = convert(net).prove()
    assert checks["gradients"].outcome == "failed"
    assert "branch.0" in checks["gradients"].detail


def test_a_weight_whose_gradient_is_zero_fails_where_the_original_learns(
    net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        block = converted.get_submodule("branch.0")
        forward = block.forward
        block.forward = lambda x: forward(x).detach() + 0 * block.weight.sum()
        return converted

    monkeypatch.setattr(model_proof, "apply_lazily", stopped)
    checks = convert(net).prove()
    assert checks["gradients"].outcome == "failed"
    assert "branch.0.weight" in checks["gradients"].detail


def test_a_mean_of_zero_is_compared_on_the_scale_of_its_deviation(convert: Callable) -> None:
    # The first norm leaves the second a mean that is zero but for rounding.
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.InstanceNorm2d(4), nn.BatchNorm2d(4))
    assert convert(model).prove()["statistics, train"].outcome == "passed"


def test_a_part_that_the_original_runs_without_gradients_is_no_fault(convert: Callable) -> None:
    class FrozenStem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.stem(x)
            return self.head(x)

    checks = convert(FrozenStem()).prove()
    assert not failing(checks)
    assert checks["gradients"].detail.startswith("none reaches stem.")
    assert checks["live sites"].outcome == "passed"


def test_a_site_that_was_not_replaced_fails(net: nn.Module, convert: Callable) -> None:
    conversion = convert(net)
    conversion.converted.pool = nn.MaxPool2d(3, 2, 1)
    check = conversion.prove("site")["nothing else left"]
    assert (check.outcome, check.detail) == ("failed", "still there: pool")


def test_a_kept_site_that_is_gone_fails(net: nn.Module, convert: Callable) -> None:
    conversion = convert(net, max_pool="keep")
    assert conversion.prove("site")["nothing else left"].outcome == "passed"
    conversion.converted.pool = nn.AdaptiveMaxPool2d((5, 5))
    check = conversion.prove("site")["nothing else left"]
    assert (check.outcome, check.detail) == ("failed", "gone: pool")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.register_buffer("extra", torch.zeros(1)),
        lambda m: m.head.register_parameter("bias", None),
        lambda m: m.head.weight.data.mul_(1 + 1e-6),
        lambda m: m.head.half().float(),
    ],
)
def test_a_change_outside_the_sites_fails(change: Callable, net: nn.Module, convert: Callable) -> None:
    conversion = convert(net)
    change(conversion.converted)
    assert conversion.prove("site")["untouched names"].outcome == "failed"


def test_a_blinded_eye_fails(net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Reader, "_note", lambda *_: None)
    assert failing(convert(net, max_pool="keep").prove("site")) >= {"two eyes, before", "two eyes, after"}


def test_own_weights_show_one_wrong_tap(net: nn.Module, convert: Callable) -> None:
    conversion = convert(net)
    one_tap(conversion.converted.stem[0])
    assert failing(conversion.prove()) == {"own weights, float32"}


def test_own_weights_may_round_as_the_original_rounds(convert: Callable) -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.conv(x) * 1e5)

    check = convert(Steep()).prove("site")["own weights, float32"]
    assert check.outcome == "passed"
    assert "rounding alone" in check.detail


def test_a_lighter_level_says_what_it_leaves_out(net: nn.Module, convert: Callable) -> None:
    checks = convert(net).prove("site")
    assert {name for name, check in checks.items() if check.outcome == "not run"} == WHOLE
    assert checks["site stem.0"].outcome == "passed"


@pytest.mark.parametrize(
    ("wanted", "params", "macs", "level"),
    [
        ("auto", 10, 10, "model"),
        ("auto", 300_000_000, 10, "site"),
        ("auto", 10, 200_000_000_000, "site"),
        ("model", 300_000_000, 10, "model"),
        ("site", 10, 10, "site"),
    ],
)
def test_the_level_follows_the_size(wanted: str, params: int, macs: int, level: str) -> None:
    measure = Measure(params=params, macs=macs, activation_bytes=0, weight_bytes=0)
    assert choose_level(wanted, measure) == level


def test_own_weights_that_let_nothing_through_prove_nothing(net: nn.Module, convert: Callable) -> None:
    nn.init.zeros_(net.head.weight)  # type: ignore[arg-type, union-attr]
    checks = convert(net).prove()
    assert checks["own weights, float32"].outcome == "not run"
    assert checks["whole model, eval"].outcome == "passed"
