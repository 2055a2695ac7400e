from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.disks import mounts
from tests.faults.references import Moment, Reference
from tests.faults.short import run_short
from tests.faults.storage import fill, forbid, odd_place, vanish
from tests.faults.writing import Writing

if TYPE_CHECKING:
    from pathlib import Path

needs_mounts = pytest.mark.skipif(not mounts(), reason="may not mount a file system (only root may)")
#: Writes in place, and says what the system says.
CARELESS = """
import os, sys, time
print("working", file=sys.stderr, flush=True)
os.makedirs("out", exist_ok=True)
try:
    with open("out/file", "wb") as file:
        for _ in range(8):
            file.write(bytes(1 << 16))
            file.flush()
            time.sleep(0.1)
except OSError as error:
    sys.exit(f"error: cannot write: {error.strerror}")
"""


@pytest.fixture
def careless(tmp_path: Path) -> Writing:
    (tmp_path / "careless.py").write_text(CARELESS, encoding="utf-8")
    return Writing(Reference((str(tmp_path / "careless.py"),), words="working", way=(sys.executable,)), "out")


@needs_mounts
def test_half_a_result_on_a_full_disk_is_told(careless: Writing) -> None:
    assert fill(careless, 0.5) == ("wrong", "half-written: out")


@needs_mounts
def test_a_traceback_on_a_read_only_disk_is_told(careless: Writing) -> None:
    assert forbid(careless)[0] == "traceback"


def test_what_vanishes_unnoticed_is_told(careless: Writing, tmp_path: Path) -> None:
    script = tmp_path / "careless.py"
    script.write_text(CARELESS.replace("exist_ok=True", "exist_ok=False").replace("time.sleep(0.1)", "time.sleep(0.2)"))
    assert vanish(careless, "output", Moment(loading=False, share=0.5))[0] == "held"  # made again, by the same command
    script.write_text(CARELESS + "\nos.rename('out/file', 'out/other')\n", encoding="utf-8")
    assert vanish(careless, "output", Moment(loading=False, share=0.5))[0] in {"traceback", "wrong"}  # as it comes


def test_a_file_that_is_replaced_is_told(careless: Writing, tmp_path: Path) -> None:
    text = CARELESS.replace("os.makedirs", "os.path.isfile('out') and os.remove('out')\nos.makedirs")
    (tmp_path / "careless.py").write_text(text, encoding="utf-8")
    assert odd_place(careless, "file")[0] == "wrong"  # exit code 0


@pytest.mark.slow
def test_some_storage(tmp_path: Path) -> None:
    run_short("storage", tmp_path)
