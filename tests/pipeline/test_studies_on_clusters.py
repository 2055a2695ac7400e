"""A study on a Ray cluster of two nodes: one is killed, and the result is that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from tests.rays import kill_a_node, needs_ray, two_nodes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_ray
NETWORK = """
from torch import nn

def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())

def build():
    return nn.Sequential(block(3, 4), block(4, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
"""


def study(folder: Path, output: str, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "spdify", "study", str(folder / "net.py:build"), "--rules", "spd,se",
        "--set", "se/gate.reduction=2", "--data", "digits", "--epochs", "4", "--seeds", "2",
        "--recipe-set", "warmup_epochs=0", "--device", "cpu", "-o", output, *more,
    ]  # fmt: skip


def ended(place: Path) -> int:
    return len(list(place.glob("runs/*/result.json")))


def results(place: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(place.glob("runs/*/result.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        found[file.parent.name] = {key: content[key] for key in ("best_epoch", "split", "evaluation", "cost")}
    return found


def test_with_a_node_killed_every_run_is_bit_equal(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    one, two, environment = tmp_path / "one", tmp_path / "two", os.environ | {"OMP_NUM_THREADS": "1"}
    alone = subprocess.run(
        study(tmp_path, str(one)), capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert alone.returncode == 0, alone.stderr
    with two_nodes() as cluster:
        args = study(tmp_path, str(two), "--engine", "ray", "--address", cluster.address)
        with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 200
            while not ended(two) and time.monotonic() < deadline:
                time.sleep(0.02)
            kill_a_node(cluster)
            _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert "6 of 6 runs to do, on 2 nodes" in text
    assert results(one) == results(two)
    assert len(results(one)) == 6
    for run in results(one):
        first, second = (load_file(place / "runs" / run / "best" / "model.safetensors") for place in (one, two))
        assert all(first[name].equal(second[name]) for name in first.keys() | second.keys()), run
