"""What a trial must not do is seen: each oracle is shown what it is for."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults import templates
from tests.faults.commands import CANARY, ESCAPE, MARKUP, TOUCH, judged, place, run_spdify, run_watched
from tests.faults.trials import Case, Outcome, Part, run_part

if TYPE_CHECKING:
    from collections.abc import Callable


def _exit(code: int) -> None:
    raise SystemExit(code)


def _fail() -> None:
    raise KeyError("x")


def _start() -> None:
    subprocess.run(["/bin/true"], check=False)


def _ask() -> None:
    with suppress(OSError):
        socket.getaddrinfo("localhost", 80)


def _allocate() -> None:
    try:
        bytearray(2**40)
    except MemoryError:
        print("MemoryError")
        raise SystemExit(1) from None


def _import() -> None:
    Path("planted.py").write_text("x = 1", encoding="utf-8")
    import sys

    sys.path.insert(0, str(Path.cwd()))
    __import__("planted")


ENTRIES: dict[str, tuple[Callable[[], object], Outcome]] = {
    "nothing": (lambda: None, "held"),
    "a refusal": (partial(_exit, 2), "refused"),
    "a file of its own": (lambda: Path("new.txt").write_text("x", encoding="utf-8"), "held"),
    "a code that is none": (partial(_exit, 7), "traceback"),
    "a fault that came through": (_fail, "traceback"),
    "a fault that was caught by the last net": (lambda: print("spdify failed unexpectedly: x"), "traceback"),
    "a file beside its folder": (lambda: Path("../outside/new").write_text("x", encoding="utf-8"), "escaped"),
    "a file somewhere else": (lambda: Path("../../elsewhere").write_text("x", encoding="utf-8"), "escaped"),
    "a file that was there": (lambda: Path("../outside/sentinel").unlink(), "escaped"),
    "a look at a file": (lambda: Path("../outside/sentinel").read_bytes(), "held"),
    "a program": (_start, "ran code"),
    "a shell": (lambda: os.system("true"), "ran code"),  # noqa: S605, S607
    "the network": (_ask, "escaped"),
    "the canary": (lambda: exec(TOUCH), "ran code"),  # noqa: S102
    "an import from its folder": (_import, "ran code"),
    "markup in a page": (lambda: Path("a.html").write_text(f"<p>{MARKUP}", encoding="utf-8"), "ran code"),
    "a text that steers the terminal": (lambda: print(ESCAPE), "ran code"),
    "half a folder": (lambda: Path(".spdify.x.partial").mkdir(), "wrong"),
    "memory that there is not": (_allocate, "crash"),
}


def _try(entry: Callable[[], object], *, refuses: bool = False) -> tuple[Outcome, str]:
    with place(templates.root()) as where:
        return judged(where, run_watched(where, entry), refuses=refuses)


def _try_command(*words: str) -> tuple[Outcome, str]:
    with place(templates.root()) as where:
        return judged(where, run_spdify(where, words))


def test_each_oracle_sees_what_it_is_for(tmp_path: Path) -> None:
    assert CANARY not in os.environ
    cases = [Case(name, "an oracle", partial(_try, entry)) for name, (entry, _) in ENTRIES.items()]
    cases.append(Case("no refusal", "an oracle", partial(_try, lambda: None, refuses=True)))
    cases.append(Case("a command", "an oracle", partial(_try_command, "--version")))
    cases.append(Case("no command", "an oracle", partial(_try_command, "nothing")))
    part = Part("oracles", lambda *_: cases, full=len(cases), short=1, timeout_s=20)
    found = {trial.name: trial.outcome for trial in run_part(part, tmp_path, count=len(cases), seed=0, jobs=1)}
    wanted = {name: outcome for name, (_, outcome) in ENTRIES.items()}
    assert found == wanted | {"no refusal": "wrong", "a command": "held", "no command": "refused"}


@pytest.mark.parametrize("count", [3, 9])
def test_a_longer_run_begins_with_a_shorter_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.faults.bundles import BUNDLES
    from tests.faults.images import IMAGES
    from tests.faults.onnx_files import ONNX
    from tests.faults.rulebooks import RULEBOOKS

    for name in ("warm", "photos", "bundle", "gated_bundle"):
        monkeypatch.setattr(templates, name, lambda: Path(__file__).parent)
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"")
    for part in (BUNDLES, IMAGES, ONNX, RULEBOOKS):
        names = [case.name for case in part.cases(700, 5)]
        assert [case.name for case in part.cases(count, 5)] == names[:count]
        assert len(set(names)) == len(names)
