from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spdify.rulebook import list_rulebooks
from tests.faults import random_networks
from tests.faults.networks import HEAD, Network, build, networks
from tests.faults.random_networks import PART, case_of, examine, statistics
from tests.faults.trials import read_trials

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from spdify.records import Plan

NET = f"""{HEAD}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 3, 2, 1)
        return self.fc(x.mean((2, 3)))
"""
SMALL = Network(NET, (3, 13, 16), ())


def test_what_is_right_is_exact(tmp_path: Path) -> None:
    found = examine(SMALL, ["spd", "spd-paper", "blurpool", "cbam"], tmp_path)
    assert found.fault == ""
    assert found.outcome == "held"
    assert found.ends == {"spd": "exact", "spd-paper": "mixed", "blurpool": "approximate", "cbam": "nothing"}


def _broken(change: str, model: nn.Module, plan: Plan) -> nn.Module:
    """Convert, and then do what no conversion may do."""
    converted = real_apply(model, plan)
    with torch.no_grad():
        if change == "a weight":
            converted.conv.weight[0, 0, 0, 0] += 1e-6  # type: ignore[union-attr,index,operator]
        elif change == "statistics":
            converted.norm.momentum = 0.2  # type: ignore[union-attr,assignment]
        elif change == "the original":
            model.fc.bias.add_(1)  # type: ignore[union-attr,operator]
        elif change == "a gradient":
            converted.norm.register_forward_hook(lambda _m, _a, y: y + 0.001 * (y - y.detach()))
        elif change == "a fault":
            raise ValueError(change)
    return converted


real_apply = random_networks.apply
#: What at least one of fifty networks has.
COMMON = (
    "residual", "concat", "added branches", "shared pool", "shared convolution", "groups", "depthwise", "dilation",
    "slice", "functional conv", "functional max pool", "functional avg pool", "modes differ", "LPPool", "1d", "3d",
    "timm BlurPool2d", "timm StdConv2d", "timm Conv2dSame", "ceil_mode", "divisor_override", "asymmetric stride",
    "kernel below stride", "padding reflect", "padding circular", "padding replicate", "padding='same'", "gate",
    "loop", "in place on a view", "tied weight", "a module under two names", "indices of a pool", "subclass", "aside",
    "interpolate", "drop path", "odd size", "channel shuffle", "channel split", "head pyramid",
    "head maps", "norm LayerNorm", "unit Conv",
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("a weight", "eval: output 0 differs"),
        ("statistics", "train: norm.running_mean differs"),
        ("the original", "the original was changed"),
        ("a gradient", "gradients: norm.weight differs"),
        ("a fault", "ValueError"),
    ],
)
def test_what_is_broken_is_found(change: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_networks, "apply", partial(_broken, change))
    found = examine(SMALL, ["spd"], tmp_path)
    assert found.outcome == ("traceback" if change == "a fault" else "wrong")
    assert words in found.fault


def test_a_site_that_is_still_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(model: nn.Module, plan: Plan) -> nn.Module:
        decisions = tuple(d for d in plan.decisions if d.site.name == "conv")
        return real_apply(model, plan.model_copy(update={"decisions": decisions}))

    monkeypatch.setattr(random_networks, "apply", forgets)
    found = examine(SMALL, ["spd"], tmp_path)
    assert found.outcome == "wrong"
    assert "left over ['#forward:max_pool2d:0']" in found.fault


def test_a_refusal_without_a_reason_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*args: object, **named: object) -> Plan:
        plan = real_plan_model(*args, **named)  # type: ignore[arg-type]
        refused = tuple(d.model_copy(update={"action": "refused", "reason": ""}) for d in plan.decisions)
        return plan.model_copy(update={"decisions": refused})

    real_plan_model = random_networks.plan_model
    monkeypatch.setattr(random_networks, "plan_model", silent)
    assert "conv: no reason" in examine(SMALL, ["spd"], tmp_path).fault


def test_a_network_is_its_number(tmp_path: Path) -> None:
    networks_of_0 = [case_of(number, 0)[0] for number in range(30)]
    assert networks_of_0 == [case_of(number, 0)[0] for number in range(30)]
    assert len({network.source for network in networks_of_0}) == 30
    assert networks_of_0[0] != case_of(0, 1)[0]
    model = build(networks_of_0[0], tmp_path)
    model(torch.zeros(2, *networks_of_0[0].shape))


def test_every_rulebook_has_its_share() -> None:
    shares = Counter(book for number in range(75) for book in case_of(number, 0)[1])
    assert shares == {book: 75 if book == "spd" else 10 for book in list_rulebooks()}
    assert {case_of(number, 0)[2] for number in range(0, 320, 20)} == set(list_rulebooks())


def test_networks_hold_what_networks_hold() -> None:
    found = Counter(feature for number in range(400) for feature in case_of(number, 0)[0].features)
    for feature in COMMON:
        assert found[feature] >= 8, feature
    assert found["parametrization"]


@pytest.mark.slow
def test_the_campaign_runs_and_goes_on(tmp_path: Path) -> None:
    def run(count: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.faults", PART.name, "-o", str(tmp_path), "--count", str(count)]
        return subprocess.run([*command, "--jobs", "1"], capture_output=True, text=True, check=False)

    assert run(2).returncode == 0
    assert run(4).returncode == 0
    trials = list(read_trials(tmp_path / f"{PART.name}.jsonl"))
    assert [trial.name for trial in trials] == ["00000", "00001", "00002", "00003"]
    assert all(trial.good for trial in trials)
    summed = statistics(trials)
    assert sum(summed["spd"].values()) == 4
    assert summed["sites"]["applied"] > 0


@pytest.mark.slow
def test_exact_or_refused_never_wrong(tmp_path_factory: pytest.TempPathFactory) -> None:
    others, ends = [book for book in list_rulebooks() if book != "spd"], Counter[str]()

    @settings(
        max_examples=PART.short, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(network=networks(), turn=st.integers(0, 4))
    def convert(network: Network, turn: int) -> None:
        found = examine(network, ["spd", *others[turn::5]], tmp_path_factory.mktemp("net"), seed=turn)
        ends.update(end.split(":")[0] for end in found.ends.values())
        assert not found.fault, f"{found.fault}\n{json.dumps(network.shape)}\n{network.source}"

    convert()
    assert ends["exact"] > ends["refused"] + ends["error"], ends
