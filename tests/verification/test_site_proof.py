"""Proofs of single sites of classes with a forward of their own: they pass, and fail where something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import timm.layers
import torch
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn

from spdify.blocks import SPDMaxPool
from spdify.rewrites import ReplaceBlurPool, ReplaceMaxPool, ReplaceStridedConv
from spdify.verification import failed, site_proof
from spdify.verification.site_proof import prove_sites

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spdify.records import Site

SHAPE = (3, 19, 18)


class Adapted(nn.Module):
    """One site of every kind that has an adapter, and a pool over two channel counts."""

    def __init__(self) -> None:
        super().__init__()
        self.same = timm.layers.Conv2dSame(3, 6, 3, 2)
        self.std = timm.layers.ScaledStdConv2d(3, 6, 3, 2, eps=1e-4)
        self.short = timm.layers.StdConv2d(3, 6, 1, 2)
        self.blur = timm.layers.BlurPool2d(6)
        self.pool = MaxPool2dSame(3, 2)
        self.routing = nn.Linear(6, 4)
        self.cond = timm.layers.CondConv2d(6, 8, 3, 2, "same")
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 5)."""
        thumb = self.pool(x).mean((2, 3))
        x = self.same(x) + self.std(x) + self.short(x)
        x = self.blur(x) + self.pool(x)
        x = self.cond(x, self.routing(x.mean((2, 3))).sigmoid()).mean((2, 3))
        return self.head(x) + thumb.sum(1, keepdim=True)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Adapted()


def test_every_kind_is_proved(net: nn.Module, convert: Callable) -> None:
    conversion = convert(net)
    assert len(conversion.plan.applied) == len(conversion.plan.decisions) == 6
    checks = conversion.prove()
    assert {c.outcome for n, c in checks.items() if n != "statistics, train"} == {"passed"}
    assert checks["live sites"].value > 1e-3


def broken(base: Any, change: Callable[[Site, dict[str, Tensor]], dict[str, Tensor]]) -> Callable:  # noqa: ANN401
    real = base.weights

    def weights(self: object, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return change(site, dict(real(self, site, old)))

    return weights


@pytest.mark.parametrize(
    ("base", "change", "wrong"),
    [
        (ReplaceStridedConv, lambda _, new: new | ({"gain": new["gain"] * 1.01} if "gain" in new else {}), {"std"}),
        (
            ReplaceStridedConv,
            lambda s, new: new | ({"weight": new["weight"].roll(1, 0)} if "experts" in s.constants else {}),
            {"cond"},
        ),
        (
            ReplaceStridedConv,
            lambda _, new: new | ({"phase_weight": new["phase_weight"] + 1e-6} if "phase_weight" in new else {}),
            {"std", "short"},
        ),
        (ReplaceBlurPool, lambda _, new: {"weight": new["weight"].roll(1, -1)}, {"blur"}),
        (
            ReplaceMaxPool,
            lambda _, new: new | {"blocks.6.tournament.1": new["blocks.6.tournament.1"].abs()},
            {"pool"},
        ),
    ],
)
def test_a_broken_weight_map_fails_at_its_site(
    base: Any,  # noqa: ANN401 - a rewrite
    change: Callable,
    wrong: set[str],
    net: nn.Module,
    convert: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "weights", broken(base, change))
    found = {check.name for check in failed(prove_sites(net, convert(net).plan, seed=0))}
    assert found == {f"site {path}" for path in wrong}


@pytest.mark.parametrize(
    ("path", "name", "value"), [("std", "eps", 1e-2), ("std", "scale", 0.9), ("short", "eps", 0.1)]
)
def test_a_misread_constant_fails(path: str, name: str, value: float, net: nn.Module, convert: Callable) -> None:
    plan = convert(net).plan
    setattr(net.get_submodule(path), name, value)  # the module is not the one that the plan was made for
    assert [check.name for check in failed(prove_sites(net, plan, seed=0))] == [f"site {path}"]


def test_a_filter_that_is_not_binomial_fails(net: nn.Module, convert: Callable) -> None:
    plan = convert(net).plan
    net.blur.filt[2, 0, 1, 1] += 1e-3  # type: ignore[union-attr, index]
    assert [check.name for check in failed(prove_sites(net, plan, seed=0))] == ["site blur"]


def test_edge_padding_of_a_dilated_max_pool_fails(convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest value is what makes it exact: with the edge value, as for other pools, the proof fails."""
    net = nn.Sequential(nn.MaxPool2d(3, 2, 1, dilation=2), nn.Conv2d(3, 4, 1))
    plan = convert(net).plan
    assert not failed(prove_sites(net, plan, seed=0))
    real = SPDMaxPool.forward

    def forward(self: SPDMaxPool, x: Tensor) -> Tensor:
        self.window = self.window._replace(taps=())
        return real(self, x)

    monkeypatch.setattr(SPDMaxPool, "forward", forward)
    assert [check.name for check in failed(prove_sites(net, plan, seed=0))] == ["site 0"]


def test_sites_that_differ_in_a_constant_alone_are_proved_each(
    convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Sequential(*(timm.layers.StdConv2d(3, 3, 3, 2, eps=eps) for eps in (1e-6, 1e-6, 1e-3)))
    plan = convert(net).plan
    calls: list[str] = []
    real = site_proof.site_error

    def counting(module: nn.Module, decision: Any, *, seed: int) -> float:  # noqa: ANN401 - a decision
        calls.append(decision.site.path)
        return real(module, decision, seed=seed)

    monkeypatch.setattr(site_proof, "site_error", counting)
    assert not failed(prove_sites(net, plan, seed=0))
    assert calls == ["0", "2"]
