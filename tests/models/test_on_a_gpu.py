"""Conversions, training and measuring on an NVIDIA GPU, against the same on the CPU: `pytest -n 0 -m gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

import spdify
from spdify.pipeline.converting import ConversionSettings
from spdify.pipeline.evaluating import evaluate
from spdify.pipeline.finetuning import finetune, resume
from spdify.pipeline.progress import Progress
from spdify.pipeline.run_settings import TrainingSettings
from spdify.records import EpochResult, Machine, MeasuredModel
from spdify.rulebook import list_rulebooks
from spdify.training import make_recipe
from tests.pipeline import training_networks
from tests.pipeline.training_networks import staged, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

DEVICE = os.environ.get("SPDIFY_GPU_TESTS_ON", "cuda")  # `cpu` tries the tests themselves
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
RECIPE = make_recipe("finetune", {"epochs": 3, "batch_size": 64, "lr": 0.002}, ["warmup_epochs=0"])


TINY = f"{training_networks.__file__}:tiny"


class Killed(BaseException):
    """Stands for a process that is gone."""


def _train(output: Path, machine: Machine, model: nn.Module | None = None, progress: Progress | None = None) -> float:
    torch.manual_seed(0)
    result = finetune(
        model or tiny(), output, data="digits", progress=progress,
        training=TrainingSettings(recipe=RECIPE, machine=machine, onnx=False),
    )  # fmt: skip
    return result.evaluation.top1


@pytest.mark.parametrize("rules", [name for name in list_rulebooks() if name != "asff"])
def test_a_network_on_a_gpu_is_converted(rules: str) -> None:
    torch.manual_seed(0)
    model = staged().double().eval().to(DEVICE)
    inputs = torch.randn(2, 3, 32, 32, dtype=torch.float64, device=DEVICE)
    try:
        conversion = spdify.convert(model, rules=rules, example_input=inputs)
    except spdify.SpdifyError as error:
        assert "nothing to convert" in str(error)  # noqa: PT017 - a rulebook may have no work here
        return
    converted = conversion.model.eval()
    assert {tensor.device.type for tensor in converted.state_dict().values()} == {"cpu"}
    assert {tensor.device.type for tensor in model.state_dict().values()} == {DEVICE}
    assert not [check for check in conversion.checks if check.outcome == "failed"]
    on_cpu = converted(inputs.cpu())
    on_gpu = converted.to(DEVICE)(inputs)
    assert torch.allclose(on_gpu.cpu(), on_cpu, atol=1e-9)
    if all(decision.claim and decision.claim.value == "exact" for decision in conversion.plan.applied):
        assert torch.allclose(on_gpu, model(inputs), atol=1e-9)


@pytest.mark.parametrize(
    "machine",
    [
        Machine(device=DEVICE),
        Machine(device=DEVICE, amp="bf16"),
        Machine(device=DEVICE, amp="fp16"),
        Machine(device=DEVICE, channels_last=True),
        Machine(device=DEVICE, amp="bf16", channels_last=True, compiled=True),
        Machine(device=DEVICE, parts=2),
        Machine(device=DEVICE, workers=2),
        Machine(device=DEVICE, deterministic=False),
    ],
    ids=["fp32", "bf16", "fp16", "channels last", "compiled", "two parts", "two loaders", "not deterministic"],
)
def test_training(machine: Machine, tmp_path: Path) -> None:
    assert _train(tmp_path / "run", machine) > 0.35  # one in ten by chance
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["machine"]["device"] == DEVICE
    found = [
        evaluate(tmp_path / "run" / "best", data="digits", split="test", machine=Machine(device=device), code=TINY)
        for device in (DEVICE, "cpu")
    ]
    there, here = (measured.evaluation for measured in found if isinstance(measured, MeasuredModel))
    assert abs(there.top1 - here.top1) < 0.006  # two of 359 images may lie on the edge
    assert there.loss == pytest.approx(here.loss, rel=1e-3)


def test_learned_sizes_train(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = finetune(
        staged(), tmp_path / "run", data="digits", conversion=ConversionSettings(rules="shape-adaptor"),
        training=TrainingSettings(recipe=RECIPE, machine=Machine(device=DEVICE, amp="bf16"), onnx=False),
    )  # fmt: skip
    assert result.evaluation.loss < 2.3  # that of guessing


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    def stop(result: EpochResult, _: int) -> None:
        if result.epoch == 2:
            raise Killed

    whole, cut, machine = tmp_path / "whole", tmp_path / "cut", Machine(device=DEVICE)
    first = _train(whole, machine)
    with pytest.raises(Killed):
        _train(cut, machine, progress=Progress(epoch=stop))
    torch.manual_seed(0)
    assert resume(cut, model=tiny()).evaluation.top1 == first
    one, two = (load_file(folder / "best" / "model.safetensors") for folder in (whole, cut))
    assert all(one[name].equal(two[name]) for name in one.keys() | two.keys())
    assert not torch.are_deterministic_algorithms_enabled()


def test_timing() -> None:
    found = spdify.bench("test_resnet", settings=spdify.BenchSettings(device=DEVICE, batch=16, rounds=5))
    assert found.device == DEVICE
    assert all(timed.milliseconds and timed.milliseconds > 0 for timed in found.timings)


def test_one_process_of_torchrun(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "spdify",
            "finetune", "test_resnet", "--data", "digits", "--epochs", "1", "--no-onnx", "--device", DEVICE,
            "--amp", "bf16", "--sync-bn", "--proof", "site", "-o", str(tmp_path / "run"),
        ],
        env=os.environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
