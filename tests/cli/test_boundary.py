from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from spdify.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Spdify


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of the apocalypse")

    monkeypatch.setattr("spdify.pipeline.inspect", fail)


@pytest.mark.usefixtures("crash")
def test_unexpected_fault(spdify: Spdify) -> None:
    result = spdify("inspect", "resnet18", code=1)
    assert "spdify failed unexpectedly: ZeroDivisionError: of the apocalypse" in result.stderr
    assert "--debug" in result.stderr


@pytest.mark.usefixtures("crash", "folder")
def test_unexpected_fault_with_debug() -> None:
    result = CliRunner().invoke(app, ["inspect", "resnet18", "--debug"])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.usefixtures("folder")
def test_expected_fault_with_debug() -> None:
    result = CliRunner().invoke(app, ["inspect", "resnet5", "--debug"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "error: Cannot" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Resource temporarily unavailable"),
        RuntimeError("could not execute a primitive"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=["Python", "PyTorch", "a thread", "oneDNN", "the system"],
)
def test_memory_that_runs_out(error: Exception, spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("spdify.pipeline.inspect", fail)
    assert spdify("inspect", "resnet18", code=1).stderr.startswith("error: cannot go on: not enough memory\n")


@pytest.mark.usefixtures("crash")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_fails_after_a_request_to_end_is_no_fault(
    number: signal.Signals, code: int, spdify: Spdify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spdify.cli.signals._came", [int(number)])
    assert spdify("inspect", "resnet18", code=code).stderr == "error: interrupted; nothing was left half-written\n"


def test_a_request_to_end_keeps_its_code(spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object, **__: object) -> None:
        raise SystemExit(1)  # as Ray makes it of 143

    monkeypatch.setattr("spdify.pipeline.inspect", end)
    spdify("inspect", "resnet18", code=1)
    monkeypatch.setattr("spdify.cli.signals._came", [int(signal.SIGTERM)])
    spdify("inspect", "resnet18", code=143)


def test_debug_does_not_stay(spdify: Spdify) -> None:
    CliRunner().invoke(app, ["rules", "show", "nonsense", "--debug"])
    assert "Traceback" not in spdify("rules", "show", "nonsense", code=1).stderr


def test_messages_do_not_steer_the_terminal(spdify: Spdify) -> None:
    stderr = spdify("rules", "show", "a\x1b[31m[bold]b", code=1).stderr
    assert "\x1b" not in stderr
    assert "[bold]b" in stderr


def test_json_with_a_fault(spdify: Spdify) -> None:
    assert "error: " in spdify("inspect", "resnet5", "--json", code=1).stderr


def test_broken_pipe(tmp_path: Path) -> None:
    command = f"{sys.executable} -m spdify schema bundle | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["/bin/bash", "-c", command], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode in {0, 1}  # 0 where all fits into the pipe before it closes
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
