from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from spdify.bundle import read_record
from spdify.cli.app import app
from spdify.cli.finetune import default_run
from spdify.records import TrainingRun

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

TRAIN = ("finetune", "net.py:build", "--data", "digits", "--epochs", "1", "--no-onnx")


def test_a_run_and_what_is_said(spdify: Spdify, folder: Path) -> None:
    result = spdify(*TRAIN)
    assert "a factory that talks" in result.stderr
    assert "classifier replaced (7): 5 outputs before, 10 now" in result.stderr
    assert "epoch 1 of 1: loss" in result.stderr
    assert "359 test images: top-1" in result.stdout
    assert "build-spd-digits: best, last" in result.stdout
    run = TrainingRun.model_validate_json((folder / "build-spd-digits" / "run.json").read_text())
    assert shlex.split(run.command)[0] == "spdify"
    again = spdify(*TRAIN, code=1)
    assert "cannot write to build-spd-digits: it is not empty" in again.stderr
    shown = spdify("finetune", "--resume", "build-spd-digits", "--json")
    assert json.loads(shown.stdout)["result"]["best_epoch"] == 1
    assert "has come to its end already" in shown.stderr
    other = spdify("finetune", "--resume", "build-spd-digits", "--epochs", "5", "--overwrite", code=2)
    assert all(words in other.stderr for words in ("cannot use", "--epochs", "--overwrite", "with --resume"))


def test_options_reach_the_run(spdify: Spdify, folder: Path) -> None:
    spdify(
        *TRAIN, "-o", "run", "-q", "--rules", "none", "--lr", "0.003", "-b", "128", "--opt", "momentum",
        "--weight-decay", "0.01", "--recipe-set", "mixup=0.1", "--grad-accum-steps", "2", "--channels-last",
        "--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,0.6", "--seed", "3", "--validation-share", "0.2",
    )  # fmt: skip
    run = TrainingRun.model_validate_json((folder / "run" / "run.json").read_text())
    recipe = run.recipe
    assert (recipe.lr, recipe.batch_size, recipe.optimizer, recipe.weight_decay, recipe.mixup) == (
        0.003, 128, "momentum", 0.01, 0.1,
    )  # fmt: skip
    assert (run.machine.parts, run.machine.channels_last, run.seed, run.validation_share) == (2, True, 3, 0.2)
    assert (run.preprocessing.mean, run.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read_record(folder / "run" / "best").seed == 3


def test_comparison(spdify: Spdify, folder: Path) -> None:
    result = spdify(*TRAIN, "--compare-baseline", "--resolution", "8", "-o", "study", "--recipe-set", "warmup_epochs=0")
    assert "converted" in result.stdout
    assert "original" in result.stdout
    assert "At 8 px:" in result.stdout
    assert (folder / "study" / "report.md").exists()
    assert "run 2 of 2: original-8-seed0" in result.stderr
    study = json.loads((folder / "study" / "study.json").read_text())
    assert study["recipe"]["new_lr_factor"] == 1  # one rate for both
    assert Path(study["data_folder"]).is_absolute()
    many = json.loads(spdify("finetune", "--resume", "study", "--code", "net.py:build", "--json", "-q").stdout)
    assert [run["arm"] for run in many["runs"]] == ["converted", "original"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected either a model, or --resume RUN"),
        (("net.py:build", "--resume", "x"), "expected either a model, or --resume RUN"),
        (("net.py:build", "--recipe", "best"), "cannot find the recipe 'best'"),
        (("net.py:build", "--recipe-set", "epoch=3"), "Did you mean epochs?"),
        (("net.py:build", "--epochs", "0"), "epochs of the recipe"),
        (("net.py:build", "--mean", "a,b"), "cannot read --mean 'a,b'"),
        (("net.py:build", "--resolution", "8,x"), "cannot read --resolution '8,x'"),
        (("net.py:build", "--resolution", "1"), "cannot read --resolution '1'"),
        (("net.py:build", "--data", "digits", "--compare-baseline", "--input-size", "3,8,16"), "equal to widths"),
        (("net.py:build", "--resolution", "8", "--input-size", "3,8,8"), "--input-size and --resolution"),
        (("net.py:build", "--data", "digit"), "Did you mean digits?"),
        (("net.py:build", "--data", "digits", "--init", "zero"), "cannot start with 'zero' weights"),
        (("net.py:build", "--data", "digits", "--rules", "none", "--rules", "spd"), "the rules none and others"),
        (("net.py:build", "--compare-baseline", "--track", "tensorboard"), "cannot track"),
    ],
)
def test_usage(spdify: Spdify, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    result = spdify("finetune", *arguments, "-o", "out", code=2)
    assert words in result.stderr.replace("\n", " ")
    assert not (folder / "out").exists()


def test_missing_data(spdify: Spdify, folder: Path) -> None:
    result = spdify("finetune", "net.py:build", code=1)
    assert "cannot read cifar10 in data" in result.stderr
    assert "--download" in result.stderr
    assert {path.name for path in folder.iterdir()} <= {"net.py", "__pycache__"}


def test_a_model_that_is_no_classifier(spdify: Spdify) -> None:
    assert "expected outputs (N, classes)" in spdify("finetune", "net.py:plain", "--data", "digits", code=1).stderr


def test_a_run_that_ends_early_says_how_to_go_on(spdify: Spdify, folder: Path) -> None:
    result = spdify(*TRAIN, "-o", "run", "--lr", "1e30", "--opt", "momentum", "--recipe-set", "clip_grad=0", code=1)
    assert "the loss became" in result.stderr
    assert "go on with: spdify finetune --resume run --code net.py:build" in result.stderr
    assert (folder / "run" / "start").is_dir()


def test_default_folder(bundle: Path) -> None:
    assert default_run("resnet18", ["spd"], "cifar10") == Path("resnet18-spd-cifar10")
    assert default_run("tv:resnet18", ["none"], "imagefolder:/data/birds") == Path("resnet18-none-birds")
    assert default_run(str(bundle), ["spd"], "digits") == Path("bundle-digits")


def test_help_says_what_there_is() -> None:
    for command in ("finetune", "evaluate", "calibrate"):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "imagefolder:PATH" in result.stdout
