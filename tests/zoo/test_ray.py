"""A sweep on a Ray cluster of two nodes, as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from spdify.zoo.store import RunFolder
from tests.rays import kill_a_node, needs_ray, two_nodes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs_ray, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
ARGS = ("--filter", "test_[emnr]*", "--onnx", "none", "--json")


def command(folder: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "spdify", "zoo", "run", "-o", str(folder), *ARGS, *args]


def test_with_a_node_killed_the_result_is_that_of_one_machine(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    alone = subprocess.run(command(whole, "--jobs", "1"), capture_output=True, text=True, check=False, timeout=300)
    assert alone.returncode == 0, alone.stderr
    with two_nodes() as cluster:
        args = command(cut, "--engine", "ray", "--address", cluster.address)
        with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 200
            while not len(RunFolder(cut).results()) and time.monotonic() < deadline:
                time.sleep(0.05)
            kill_a_node(cluster)
            out, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    ours = {"models", "failed", "exports", "exports_failed", "claims_broken"}
    first, second = ({key: json.loads(said)[key] for key in ours} for said in (alone.stdout, out))
    assert first == second
    assert first["models"] > 6
    one, two = ([record.finding for record in RunFolder(folder).results()] for folder in (whole, cut))
    assert one == two
    assert (cut / "results.jsonl").read_bytes().count(b"\n") == len(two)
    begun, ended = map(json.loads, (cut / "sessions.jsonl").read_text().splitlines())
    assert (begun["engine"], begun["nodes"]) == ("ray", 2)
    assert ended["nodes"] in {1, 2}  # Ray takes some seconds to notice
