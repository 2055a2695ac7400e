"""`spdify study`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from spdify.errors import SpdifyError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Spdify

STAGED = """
from torch import nn

def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())

def build():
    return nn.Sequential(block(3, 4), block(4, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
"""


@pytest.fixture
def network(folder: Path) -> str:
    (folder / "staged.py").write_text(STAGED, encoding="utf-8")
    return "staged.py:build"


def test_study(spdify: Spdify, folder: Path, network: str) -> None:
    more = ("--data", "digits", "--epochs", "1", "--seeds", "1", "--recipe-set", "warmup_epochs=0")
    result = spdify("study", network, "--rules", "spd+se", "--set", "se/gate.reduction=2", *more)
    place = folder / "zoo_results" / "studies" / "build-digits"
    assert "run 2 of 2: original-native-seed0" in result.stderr
    assert (place / "report.html").exists()
    study = json.loads((place / "study.json").read_text())
    assert study["contenders"] == [["spd", "se"]]
    again = json.loads(spdify("study", "--resume", str(place), "--code", network, "--json", "-q").stdout)
    assert [run["arm"] for run in again["runs"]] == ["spd+se", "original"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected a model and --rules"),
        (("staged.py:build",), "expected a model and --rules"),
        (("staged.py:build", "--rules", "spd,,se"), "cannot read --rules 'spd,,se'"),
        (("staged.py:build", "--rules", "spd+"), "cannot read --rules 'spd+'"),
        (("staged.py:build", "--rules", "spd,se", "--set", "gate.reduction=2"), "expected book/rule.param=value"),
        (("staged.py:build", "--rules", "spd,se,spd"), "same rulebooks twice"),
        (("staged.py:build", "--rules", "spd", "--resolution", "x"), "cannot read --resolution"),
    ],
)
def test_usage(spdify: Spdify, folder: Path, network: str, arguments: tuple[str, ...], words: str) -> None:
    result = spdify("study", *arguments, "--data", "digits", "-o", "out", code=2)
    assert words in result.stderr.replace("\n", " ")
    assert network
    assert not (folder / "out").exists()


def test_a_rulebook_with_nothing_to_do(spdify: Spdify, folder: Path) -> None:
    result = spdify("study", "net.py:build", "--rules", "spd,cbam", "--data", "digits", "-o", "out", code=4)
    assert "with cbam of cbam" in result.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--address", "h:1", "--task-gpus", "1"), "cannot use --address, --task-gpus on this machine alone"),
        (("--engine", "ray", "--device", "cuda"), "cannot train on GPUs: the tasks are to have none"),
        (("--engine", "ray", "--address", "127.0.0.1:1"), "cannot reach a Ray cluster at 127.0.0.1:1"),
    ],
)
def test_clusters_that_cannot_be(
    spdify: Spdify, folder: Path, network: str, arguments: tuple[str, ...], words: str
) -> None:
    pytest.importorskip("ray")
    more = ("--data", "digits", "--rules", "spd", "--recipe-set", "warmup_epochs=0")
    result = spdify("study", network, *more, *arguments, "-o", "out", code=2)
    assert words in " ".join(result.stderr.split())
    assert not (folder / "out").exists()


def test_how_to_go_on_names_the_cluster(
    spdify: Spdify, folder: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")

    def lost(*_: object) -> None:
        raise SpdifyError("lost the cluster")

    monkeypatch.setattr("spdify.pipeline.studying.require_reachable", lambda _: None)
    monkeypatch.setattr("spdify.pipeline.studying._train_on", lost)
    given = ("--address", "h:1", "--task-cpus", "2.5", "--task-memory", "4", "--retries", "5")
    more = ("--data", "digits", "--rules", "spd", "--recipe-set", "warmup_epochs=0", "--engine", "ray", "-o", "out")
    said = " ".join(spdify("study", network, *more, *given, "--task-gpus", "1", code=1).stderr.split())
    assert "--resume out --code staged.py:build --engine ray --address h:1 --task-cpus 2.5 --task-gpus 1.0" in said
    assert "--task-memory 4.0 --retries 5" in said
    assert (folder / "out" / "study.json").exists()


@pytest.mark.parametrize("argument", ["--address=h:1", "--retries=1"])
def test_a_run_is_not_gone_on_with_on_a_cluster(spdify: Spdify, argument: str) -> None:
    assert "Add --engine ray" in spdify("study", "--resume", "run", argument, code=2).stderr
