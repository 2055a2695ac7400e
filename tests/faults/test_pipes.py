from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults import pipes
from tests.faults.processes import Command, shell
from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_stream_that_ends_in_a_traceback_is_told(tmp_path: Path) -> None:
    way = ("/bin/bash", "-c", 'exec "$@" > /dev/full', "bash", sys.executable, "-c", "print('result')")
    fault = Command((), tmp_path, way=way).end().fault(0, 1)
    assert fault is not None


@pytest.mark.parametrize(("fault", "script"), [("stdout is full", 'exec "$@"'), ("stderr is closed", "echo other")])
def test_another_end_is_told(fault: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, codes, whole = pipes.FAULTS[fault]
    monkeypatch.setitem(pipes.FAULTS, fault, (script, codes, whole))
    monkeypatch.setattr(pipes, "run", lambda *_: Command(("--version",), *_[1:], way=shell('exec "$@"')).end())
    outcome, _ = pipes.try_stream(fault, ("--version",), {})
    assert outcome == "wrong"


@pytest.mark.slow
def test_some_pipes(tmp_path: Path) -> None:
    run_short("pipes", tmp_path)
