"""Training in processes of their own: several at once, and killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow
ALONE = (sys.executable, "-m", "spdify")
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spdify")
WAYS = pytest.mark.parametrize("way", [ALONE, TWO], ids=["one process", "two processes"])
TRAIN = (
    "finetune", "test_resnet", "--data", "digits", "--epochs", "3", "--no-onnx", "--device", "cpu", "--proof", "site",
    "--recipe-set", "mixup=0.2", "--recipe-set", "ema_decay=0.9",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PATIENCE = 240.0


def run(way: Sequence[str], *arguments: str) -> str:
    done = subprocess.run(
        [*way, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def kill_when(way: Sequence[str], arguments: Sequence[str], words: str, then: float = 0.0) -> None:
    """Start a run, and kill all of its processes some seconds after it has said something."""
    process = subprocess.Popen(
        [*way, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            break
    else:
        pytest.fail("".join(said))
    time.sleep(then)
    launcher = psutil.Process(process.pid)
    # torchrun gives its workers groups of their own: a killed launcher leaves them running.
    everyone = [launcher, *launcher.children(recursive=True)]
    for one in everyone:
        one.kill()
    process.stderr.close()
    process.wait(PATIENCE)
    psutil.wait_procs(everyone, timeout=PATIENCE)


def equal(a: Path, b: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@WAYS
def test_killed_and_resumed_is_bit_for_bit_the_same(way: tuple[str, ...], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(way, *TRAIN, "-o", str(whole))
    kill_when(way, (*TRAIN, "-o", str(cut)), "epoch 1 of 3", then=0.1)
    # A second time, in the middle of the epoch that it does again.
    kill_when(way, ("finetune", "--resume", str(cut)), "resumed after epoch 1", then=1.0)
    said = run(way, "finetune", "--resume", str(cut))
    assert "resumed after epoch" in said
    for name in ("last", "best"):
        assert equal(whole / name, cut / name)
    shown = [(folder / "results.csv").read_text().splitlines() for folder in (whole, cut)]
    timeless = [[line.rsplit(",", 2)[0] for line in lines] for lines in shown]
    assert timeless[0] == timeless[1]


def test_two_processes_do_what_two_parts_do(tmp_path: Path) -> None:
    plain = [*TRAIN[:-4], "--epochs", "1"]
    run(TWO, *plain, "-o", str(tmp_path / "two"))
    run(ALONE, *plain, "-o", str(tmp_path / "parts"), "--grad-accum-steps", "2")
    two, parts = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("two", "parts"))
    for name in two:
        if "running" in name or "num_batches" in name:
            continue  # averaged over the processes here, one after the other there
        assert torch.allclose(two[name], parts[name], atol=2e-4), name


def test_the_number_of_processes_may_not_change(tmp_path: Path) -> None:
    kill_when(ALONE, (*TRAIN, "-o", str(tmp_path / "run")), "epoch 1 of 3")
    done = subprocess.run(
        [*TWO, "finetune", "--resume", str(tmp_path / "run")], env=ENVIRONMENT, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "with 2 processes: it began with 1" in done.stderr


def test_one_process_that_dies_ends_the_other(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*TWO, *TRAIN, "-o", str(tmp_path / "run")], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1 of 3" in line:
            break
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    children[1].kill()
    process.stderr.read()
    assert process.wait(PATIENCE) != 0
    run(TWO, "finetune", "--resume", str(tmp_path / "run"))
    assert (tmp_path / "run" / "result.json").exists()


def test_digits_as_the_readme_has_it(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [*ALONE, "finetune", "resnet18", "--data", "digits", "-o", str(tmp_path / "run")], capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spent = time.monotonic() - began
    measured = run(ALONE, "evaluate", str(tmp_path / "run" / "best"), "--data", "digits")
    assert measured == ""
    from spdify.pipeline.run_folder import RunFolder

    result = RunFolder(tmp_path / "run").result()
    assert result is not None
    assert result.evaluation.top1 > 0.95
    print(f"{spent:.0f} s")  # noqa: T201 - a figure to read, not to test: machines differ
