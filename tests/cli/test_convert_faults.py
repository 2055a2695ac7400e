"""Bad input, one fault per test: the message says what, where and what to do, and nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import pickle
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import save_file

from spdify.sources import BuildOptions, build

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

WRITING = "spdify.bundle.writing.serialize_file"
NET = ("net.py:build", "--input-size", "3,16,16", "--no-onnx")


def listing(folder: Path) -> list[tuple[str, bytes]]:
    files = (p for p in folder.rglob("*") if "__pycache__" not in p.parts)
    return sorted((str(p), p.read_bytes() if p.is_file() else b"") for p in files)


def fails(spdify: Spdify, *args: str, told: list[str], code: int = 1) -> None:
    """Convert to a new folder, and expect a fault that leaves nothing behind."""
    before = listing(Path.cwd())
    stderr = spdify("convert", *args, code=code).stderr
    for words in told:
        assert words in stderr
    assert listing(Path.cwd()) == before


def weights() -> dict[str, torch.Tensor]:
    return build("net.py:build", BuildOptions(input_size=(3, 16, 16))).model.state_dict()


def test_unknown_model(spdify: Spdify) -> None:
    fails(spdify, "resnet5", "-o", "out", told=["resnet5", "Did you mean", "resnet50"])


def test_name_longer_than_a_file_may_have(spdify: Spdify) -> None:
    fails(spdify, "x" * 300, "-o", "out", told=["Cannot find", "x" * 300])


def test_folder_that_is_no_bundle(spdify: Spdify) -> None:
    Path("plain").mkdir()
    fails(spdify, "./plain", told=["Cannot read the model spec './plain'"], code=2)
    fails(spdify, "./plain", "-o", "out", told=["cannot open ./plain: it is no folder that spdify wrote", "local-dir:"])


def test_name_of_two_things(spdify: Spdify, bundle: Path) -> None:
    bundle.rename("resnet18")
    told = ["cannot tell what resnet18 is", "./resnet18 for the folder", "timm:resnet18 for the model"]
    fails(spdify, "resnet18", "-o", "out", told=told, code=2)
    spdify("inspect", "./resnet18", "--code", "net.py:build")


@pytest.mark.parametrize(
    ("args", "told", "code"),
    [
        (["--input-size", "3x16x16"], ["Cannot read the input size '3x16x16'", "for example 3,224,224"], 2),
        (["--input-size", "3,0,16"], ["Cannot use the input size 3,0,16", "got 0"], 2),
        (["--input-size", "4,16,16"], ["(1, 4, 16, 16)", "Check --input-size C,H,W"], 1),
        (["--proof", "none"], ["cannot prove at level 'none'", "auto, model, site"], 2),
        (["--opset", "3"], ["cannot write ONNX opset 3", "18 to 25"], 2),
        (["--seed", "-1"], ["--seed", "greater than or equal to 0"], 2),
        (["--num-classes", "-2"], ["--num-classes -2", "at least 0"], 2),
        (["--model-kwargs", "width"], ["--model-kwargs 'width'", "key=value"], 2),
        (["--model-kwargs", "depth=3"], ["net.py:build", "depth"], 1),
        (["--set", "max-pool.form=circle"], ["params.form", "tournament", "'circle'"], 1),
        (["--set", "max-pol.form=keep"], ["got 'max-pol'", "Did you mean 'max-pool'?"], 1),
        (["--set", "nonsense"], ["cannot set 'nonsense'", "for example"], 2),
        (["--code", "net.py:build"], ["cannot use --code with net.py:build", "not a bundle"], 2),
        (["--pretrained"], ["Cannot fetch pretrained weights for net.py:build", "--checkpoint FILE"], 2),
        (["--pretrained", "--checkpoint", "w.pt"], ["both --pretrained and --checkpoint", "Leave out one"], 2),
    ],
)
def test_option_value(spdify: Spdify, args: list[str], told: list[str], code: int) -> None:
    fails(spdify, *NET, *args, "-o", "out", told=told, code=code)


def test_input_size_unknown(spdify: Spdify) -> None:
    fails(spdify, "net.py:build", told=["Cannot know the input size of net.py:build", "--input-size C,H,W"], code=2)


def test_checkpoint_truncated(spdify: Spdify) -> None:
    save_file(weights(), "w.safetensors")
    data = Path("w.safetensors").read_bytes()
    Path("w.safetensors").write_bytes(data[: len(data) // 2])
    fails(spdify, *NET, "--checkpoint", "w.safetensors", "-o", "out", told=["w.safetensors", "damaged", "again"])


def test_checkpoint_corrupt(spdify: Spdify) -> None:
    Path("w.safetensors").write_bytes(b"\xff" * 64)
    fails(spdify, *NET, "--checkpoint", "w.safetensors", "-o", "out", told=["w.safetensors", "damaged", "again"])


def test_checkpoint_that_would_run_code(spdify: Spdify) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, ("pwned",)

    Path("old.pt").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    torch.save({"state_dict": Evil()}, "new.pt")
    for name in ("old.pt", "new.pt"):
        fails(spdify, *NET, "--checkpoint", name, "-o", "out", told=[name, "code", "safetensors.torch.save_file"])
    assert not Path("pwned").exists()


def test_checkpoint_of_another_network(spdify: Spdify) -> None:
    save_file({"conv.weight": torch.ones(3)}, "w.safetensors")
    told = ["w.safetensors", "missing", "1 unexpected", "conv.weight"]
    fails(spdify, *NET, "--checkpoint", "w.safetensors", "-o", "out", told=told)


def test_checkpoint_with_other_classes(spdify: Spdify) -> None:
    save_file(weights(), "w.safetensors")
    told = ["7.weight (expected 9x8, got 5x8)", "--num-classes 5"]
    fails(spdify, *NET, "--num-classes", "9", "--checkpoint", "w.safetensors", "-o", "out", told=told)


def test_checkpoint_missing(spdify: Spdify) -> None:
    fails(spdify, *NET, "--checkpoint", "w.pt", "-o", "out", told=["w.pt", "no such file"])


def test_pretrained_offline(spdify: Spdify, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "nothing"))
    told = ["Cannot fetch weights for", "--checkpoint FILE", "leave out --pretrained"]
    fails(spdify, "test_resnet", "--pretrained", "-o", "out", told=told)


def test_output_is_not_empty(spdify: Spdify, bundle: Path) -> None:
    fails(spdify, *NET, "-o", str(bundle), told=[f"cannot write to {bundle}: it is not empty", "--overwrite"])


def test_output_is_not_ours(spdify: Spdify, folder: Path) -> None:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("years of work", encoding="utf-8")
    told = ["cannot replace thesis", "spdify did not write it", "-o DIR"]
    fails(spdify, *NET, "-o", "thesis", "--overwrite", told=told)
    fails(spdify, *NET, "-o", ".", "--overwrite", told=["cannot replace ."])


def test_output_is_a_file(spdify: Spdify) -> None:
    Path("out").touch()
    fails(spdify, *NET, "-o", "out", told=["cannot write to out: it is not a folder", "-o DIR"])
    fails(spdify, *NET, "-o", "out/deeper", told=["out is not a folder", "-o"])


def test_output_without_permission(spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    fails(spdify, *NET, "-o", "a/b", told=["cannot write to a/b: no permission in", "-o"])


def test_output_folder_refused_by_the_system(spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    fails(spdify, *NET, "-o", "a/b/c", told=["cannot write a/b/c: Permission denied", "-o"])


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        (WRITING, OSError(errno.ENOSPC, "No space left on device")),
        (
            WRITING,
            SafetensorError("Error: I/O error: No space left on device (os error 28)"),
        ),
        ("pathlib.Path.write_text", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_disk_is_full(spdify: Spdify, monkeypatch: pytest.MonkeyPatch, target: str, fault: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(target, fail)
    fails(spdify, *NET, "-o", "deep/out", told=["cannot write deep/out: no space left on the device", "Free some"])


def test_old_bundle_stays_when_the_new_one_fails(spdify: Spdify, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WRITING, fail)
    fails(spdify, *NET, "-o", str(bundle), "--overwrite", told=["no space left"])


def test_interrupt_while_writing(spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WRITING, interrupt)
    fails(spdify, *NET, "-o", "deep/out", told=["interrupted; nothing was left half-written"], code=130)


def damaged(bundle: Path, change: dict[str, Any]) -> None:
    file = bundle / "spdify.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")


def test_bundle_of_own_code_without_it(spdify: Spdify, bundle: Path) -> None:
    told = ["cannot build net.py:build", "code of your own", "--code path/to/file.py:factory"]
    fails(spdify, str(bundle), "-o", "out", told=told)


def test_bundle_of_another_code(spdify: Spdify, bundle: Path) -> None:
    told = ["cannot apply the plan to Sequential: expected structure", "exactly as it was planned"]
    (bundle.parent / "other.py").write_text(
        Path("net.py").read_text(encoding="utf-8").replace("nn.Linear(8", "nn.ReLU(), nn.Linear(8"), encoding="utf-8"
    )
    fails(spdify, str(bundle), "--code", "other.py:build", "-o", "out", told=told)


def test_bundle_built_anew(spdify: Spdify, bundle: Path) -> None:
    told = [f"cannot build {bundle} anew: it is a bundle", "--num-classes"]
    fails(spdify, str(bundle), "--num-classes", "3", "-o", "out", told=told, code=2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 9}, ["at schema_version", "the version of spdify that wrote"]),
        ({"plans": "none"}, ["at plans"]),
        ({"surprise": 1}, ["at surprise"]),
        ({"plans": []}, ["has no plan"]),
    ],
)
def test_damaged_plan(spdify: Spdify, bundle: Path, change: dict[str, Any], told: list[str]) -> None:
    damaged(bundle, change)
    fails(spdify, str(bundle), "--code", "net.py:build", "-o", "out", told=["spdify.json", *told])


def test_plan_with_an_impossible_block(spdify: Spdify, bundle: Path) -> None:
    record = json.loads((bundle / "spdify.json").read_text(encoding="utf-8"))
    record["plans"][0]["decisions"][0]["site"]["geometry"]["groups"] = 7
    damaged(bundle, record)
    told = ["cannot build the blocks of", "The plan in spdify.json is damaged"]
    fails(spdify, str(bundle), "--code", "net.py:build", "-o", "out", told=told)


def test_plan_cut_short(spdify: Spdify, bundle: Path) -> None:
    text = (bundle / "spdify.json").read_text(encoding="utf-8")
    (bundle / "spdify.json").write_text(text[: len(text) // 2], encoding="utf-8")
    fails(spdify, str(bundle), "-o", "out", told=["spdify.json", "Invalid JSON", "Convert the model again"])


def test_weights_missing(spdify: Spdify, bundle: Path) -> None:
    (bundle / "model.safetensors").unlink()
    fails(spdify, str(bundle), "--code", "net.py:build", "-o", "out", told=["model.safetensors", "copy or convert it"])


def test_weights_of_another_network(spdify: Spdify, bundle: Path) -> None:
    save_file({"0.weight": torch.ones(3)}, bundle / "model.safetensors")
    told = ["cannot load the weights of", "expected (6, 12, 2, 2), got (3,)", "those of another network"]
    fails(spdify, str(bundle), "--code", "net.py:build", "-o", "out", told=told)


def test_report_damaged(spdify: Spdify, bundle: Path) -> None:
    (bundle / "report.json").write_text('{"schema_version": 1}', encoding="utf-8")
    result = spdify("report", bundle, "--json", code=1)
    assert "report.json: at model, Field required" in result.stderr
    assert "Convert the model again" in result.stderr


def test_nothing_to_fold(spdify: Spdify) -> None:
    args = ("test_resnet", "--reparameterize", "-o", "out")
    fails(spdify, *args, told=["Cannot re-parameterise timm:test_resnet", "Leave out --reparameterize"], code=2)


def test_folding_a_bundle(spdify: Spdify, bundle: Path) -> None:
    fails(spdify, str(bundle), "--reparameterize", "-o", "out", told=["it is a bundle", "--reparameterize"], code=2)


def test_quantized_already(spdify: Spdify) -> None:
    args = ("tv:quantized_mobilenet_v2", "--model-kwargs", "quantize=True", "-o", "out")
    fails(spdify, *args, told=["it is quantized already", "without quantize=True"])


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes there")
def test_a_name_that_is_not_utf8_costs_nobody_his_work(
    spdify: Spdify, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = os.fsdecode(b"o\xff")
    monkeypatch.setattr(sys, "argv", ["spdify", "convert", place])
    made = json.loads(spdify("convert", *NET, "-o", place, "--json").stdout)
    assert made["folder"] == "o\ufffd"
    record = json.loads((folder / place / "spdify.json").read_text())
    assert record["command"] == "spdify convert 'o\ufffd'"
    assert "Written to o\ufffd" in spdify("convert", *NET, "-o", place, "--overwrite").stdout
