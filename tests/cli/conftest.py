"""The command line in this process, in a folder of its own, and a tiny network in a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import pytest
import torch
from typer.testing import CliRunner, Result

NET = """
from torch import nn

def build(width: int = 6, num_classes: int = 5):
    print("a factory that talks")
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(width, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

def refused():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.LPPool2d(2, 2))
"""


torch.set_num_threads(1)  # tiny networks: threads only get into each other's way


class Spdify(Protocol):
    def __call__(self, *args: str | Path, code: int = 0) -> Result: ...


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `net.py` in it."""
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture
def spdify(folder: Path) -> Spdify:  # noqa: ARG001 - commands run there
    """Run the command line and expect an exit code; faults are on stderr, and stdout is empty where there is one."""
    from spdify.cli.app import app

    def run(*args: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == code, (result.exit_code, result.stderr, result.exception)
        if code in {1, 2, 3, 130}:
            assert result.stdout == ""
            assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def made_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny network at 16×16, without ONNX; made once, not to be changed."""
    from spdify.cli.app import app

    folder = tmp_path_factory.mktemp("made")
    (folder / "net.py").write_text(NET, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(
            app, ["convert", "net.py:build", "--input-size", "3,16,16", "--no-onnx", "-o", "bundle", "-q"]
        )
    assert result.exit_code == 0, result.stderr
    return folder / "bundle"


@pytest.fixture
def bundle(made_bundle: Path, folder: Path) -> Path:
    """A copy of that bundle in the working directory."""
    return Path(shutil.copytree(made_bundle, folder / "bundle"))
