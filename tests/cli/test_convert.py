from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

from spdify import load
from spdify.bundle import read_record, read_report
from spdify.cli.app import app
from spdify.cli.convert import default_output
from spdify.sources import BuildOptions, build

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

FILES = {"model.safetensors", "config.json", "spdify.json", "report.json", "report.md", "report.html", "README.md"}
SIZE = ("--input-size", "3,16,16")
SMALL = ("--input-size", "3,64,64")  # the smallest that fills every stage of test_resnet


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_whole_way_with_onnx(spdify: Spdify, folder: Path) -> None:
    result = spdify("convert", "net.py:build", *SIZE)
    out = folder / "build-spd"
    assert names(out) == FILES | {"model.onnx"}
    assert "2 strided convolutions and 1 max pool replaced (same function to" in result.stdout
    assert "Written to build-spd" in result.stdout
    assert "a factory that talks" in result.stderr
    assert "onnx batch 3" in result.stdout
    record = read_record(out)
    assert record.onnx is not None
    assert record.onnx.file == "model.onnx"
    assert shlex.split(record.command)[0] == "spdify"
    assert names(folder) - {"__pycache__"} == {"net.py", "build-spd"}


def test_json_is_all_there_is_on_stdout(spdify: Spdify) -> None:
    result = spdify("convert", "net.py:build", *SIZE, "--no-onnx", "--json", "-o", "out")
    value = json.loads(result.stdout)
    assert value["folder"] == "out"
    assert value["onnx"] is None
    assert value["report"] == json.loads(Path("out/report.json").read_text(encoding="utf-8"))


def test_quiet_and_verbose(spdify: Spdify) -> None:
    quiet = spdify("convert", "net.py:build", *SIZE, "--no-onnx", "-o", "a", "-q")
    assert quiet.stderr == "a factory that talks\n"
    verbose = spdify("convert", "net.py:build", *SIZE, "--no-onnx", "-o", "b", "-v")
    for step in ("building the model", "finding the sites", "rewriting 3 sites", "proving (level model)", "writing"):
        assert step in verbose.stderr
    assert "proving" not in verbose.stdout


def test_registry_model_loads_by_itself(spdify: Spdify) -> None:
    spdify("convert", "test_resnet", *SMALL, "--no-onnx", "-o", "out", "-q", "--seed", "3")
    original = build("test_resnet", BuildOptions(seed=3)).model
    converted = load("out")
    assert not converted.training
    assert type(converted).__name__ == type(original).__name__
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(converted(x), original(x))


def test_dry_run_writes_nothing(spdify: Spdify, folder: Path) -> None:
    before = names(folder)
    result = spdify("convert", "net.py:build", *SIZE, "--dry-run", "-o", "out")
    assert "nothing was proved, nothing was written" in result.stdout
    planned = json.loads(spdify("convert", "net.py:build", *SIZE, "--dry-run", "--json").stdout)
    assert [d["action"] for d in planned["decisions"]] == ["applied"] * 3
    assert planned["checks"] == []
    assert names(folder) - {"__pycache__"} == before


def test_nothing_to_convert(spdify: Spdify, folder: Path) -> None:
    result = spdify("convert", "net.py:plain", *SIZE, "-o", "out", code=4)
    assert "nothing to convert in plain with spd: it has no strided site" in result.stderr
    assert "spdify inspect" in result.stderr
    assert not (folder / "out").exists()
    assert "nothing to convert" in spdify("convert", "net.py:plain", *SIZE, "--dry-run", code=4).stderr


def test_strict_makes_refusals_errors(spdify: Spdify, folder: Path) -> None:
    rules = """schema = 1
summary = "A rule whose rewrite refuses."
[[rule]]
name = "pools-as-convs"
rewrite = "replace-average-pool"
match = {}
"""
    Path("odd.toml").write_text(rules, encoding="utf-8")
    result = spdify("convert", "net.py:build", *SIZE, "-r", "odd.toml", "--strict", "-o", "out", code=1)
    assert "cannot convert build strictly" in result.stderr
    assert "sites refused" in result.stderr
    assert not (folder / "out").exists()
    # A dry run shows its plan all the same.
    dry = CliRunner().invoke(
        app, ["convert", "net.py:build", *SIZE, "-r", "odd.toml", "--strict", "--dry-run", "--json"]
    )
    assert dry.exit_code == 1
    assert "strictly" in dry.stderr
    assert {d["action"] for d in json.loads(dry.stdout)["decisions"]} == {"refused"}


def test_set_changes_a_parameter(spdify: Spdify) -> None:
    spdify("convert", "net.py:build", *SIZE, "--no-onnx", "-o", "out", "--set", "max-pool.form=keep", "-q")
    actions = [d.action for d in read_report(Path("out")).decisions]
    assert actions == ["applied", "kept", "applied"]


def test_converted_again_there_is_nothing_to_do(spdify: Spdify, bundle: Path) -> None:
    result = spdify("convert", bundle, "--code", "net.py:build", "-o", "again", code=4)
    assert "nothing to convert in build" in result.stderr
    assert not Path("again").exists()


def test_conversions_stack(spdify: Spdify) -> None:
    args = ("--model-kwargs", "width=4", "--num-classes", "3")
    spdify("convert", "net.py:build", *SIZE, *args, "--no-onnx", "-o", "first", "--set", "max-pool.form=keep", "-q")
    # Without --input-size and --model-kwargs: the bundle knows both.
    spdify("convert", "first", "--code", "net.py:build", "--no-onnx", "-q")
    assert [len(plan.applied) for plan in read_record(Path("first-spd")).plans] == [2, 1]
    options = BuildOptions(model_kwargs={"width": 4}, num_classes=3, input_size=(3, 16, 16))
    original = build("net.py:build", options).model
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(load("first-spd", model=original)(x), original(x))


STEM = """schema = 1
summary = "The stem only."
[[rule]]
name = "stem"
rewrite = "replace-strided-conv"
match = { operator = "conv", position = "0" }
"""


def test_stacked_registry_model_is_exact_against_the_original(spdify: Spdify) -> None:
    Path("stem.toml").write_text(STEM, encoding="utf-8")
    spdify("convert", "test_resnet", *SMALL, "--no-onnx", "-o", "one", "-r", "stem.toml", "-q")
    spdify("convert", "one", "--no-onnx", "-o", "two", "-q")
    plans = read_record(Path("two")).plans
    assert [plan.rulebook for plan in plans] == ["stem", "spd"]
    assert len(plans[0].applied) == 1
    assert len(plans[1].applied) > 1
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(load("two")(x), build("test_resnet").model(x))


def test_several_rulebooks(spdify: Spdify) -> None:
    Path("stem.toml").write_text(STEM, encoding="utf-8")
    books = ("--rules", "stem.toml", "-r", "spd")
    line = "1 site is matched by a later rulebook too; the first wins: 0 (stem/stem before spd/strided-conv)."
    text = spdify("convert", "net.py:build", *SIZE, *books, "--no-onnx", "--set", "spd/max-pool.form=keep").stdout
    assert "build, rulebook stem+spd" in text
    assert line in text
    assert line in Path("build-stem+spd/report.md").read_text(encoding="utf-8")
    (plan,) = read_record(Path("build-stem+spd")).plans
    assert (plan.rulebook, plan.rulebook_source) == ("stem+spd", "arXiv:2208.03641, section 3")
    decided = [(d.rule, d.action) for d in plan.decisions]
    assert decided == [("stem/stem", "applied"), ("spd/max-pool", "kept"), ("spd/strided-conv", "applied")]
    assert plan.decisions[0].also_matched == ("spd/strided-conv",)
    original = build("net.py:build", BuildOptions(input_size=(3, 16, 16))).model
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(load("build-stem+spd", model=original)(x), original(x))


def test_one_rulebook_twice(spdify: Spdify, folder: Path) -> None:
    result = spdify("convert", "net.py:build", *SIZE, "-r", "spd", "-r", "spd", "-o", "out", code=1)
    assert "cannot join rulebooks: expected a name of its own for each, got 'spd' more than once" in result.stderr
    assert not (folder / "out").exists()


def test_overwrite_replaces_a_bundle(spdify: Spdify, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"stale")
    spdify("convert", "net.py:build", *SIZE, "--no-onnx", "-o", bundle, "--overwrite", "-q")
    assert names(bundle) == FILES


@pytest.mark.parametrize(
    ("model", "rules", "folder_name"),
    [
        ("resnet50", ["spd"], "resnet50-spd"),
        ("timm:resnet50.a1_in1k", ["spd"], "resnet50.a1_in1k-spd"),
        ("hf-hub:org/name", ["books/mine.toml"], "name-mine"),
        ("net.py:build", ["spd"], "build-spd"),
        ("resnet50", ["books/mine.toml", "spd"], "resnet50-mine+spd"),
    ],
)
def test_default_output(model: str, rules: list[str], folder_name: str) -> None:
    assert default_output(model, rules) == Path(folder_name)


def test_default_output_of_a_bundle(bundle: Path) -> None:
    assert default_output(f"{bundle}/", ["spd"]) == Path("bundle-spd")


@pytest.mark.parametrize("option", [("--init", "random"), ("--width-factor", "2"), ("--depth-factor", "2")])
def test_a_dry_run_does_not_scale_or_draw(spdify: Spdify, option: tuple[str, str]) -> None:
    assert "cannot plan" in spdify("convert", "resnet18", "--dry-run", *option, code=2).stderr


def test_unknown_initial_weights_are_a_usage_error(spdify: Spdify) -> None:
    assert "cannot start with 'nothing' weights" in spdify("convert", "resnet18", "--init", "nothing", code=2).stderr


@pytest.mark.slow
def test_checks_of_single_modules_are_one_row_per_step(spdify: Spdify) -> None:
    table = spdify(
        "convert", "resnet18", *SMALL, "--rules", "spd-released", "--width-factor", "1.25", "--no-onnx", "-o", "out"
    ).stdout
    assert sum("carried" in line and "largest of" in line for line in table.splitlines()) == 2
    assert "carried layer" not in table
    assert "Scaled first: width 1.25: 20 of 20" in table
