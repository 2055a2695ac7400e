from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.memory import starve
from tests.faults.references import Reference
from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path

WORKING = "import os, sys, time\nprint('working', file=sys.stderr, flush=True)\ntime.sleep(1)\n"
HUNGRY = "try:\n    block = bytearray(1 << 28)\nexcept MemoryError:\n    {then}\n"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits another process (Linux)")


@pytest.mark.parametrize(
    ("then", "outcome"),
    [
        ("raise", "traceback"),
        ("sys.exit('error: not so')", "wrong"),
        ("os.mkdir('out'); sys.exit('error: not enough memory')", "wrong"),
        ("sys.exit('error: not enough memory\\nFree some.')", "refused"),
    ],
)
def test_ends_without_memory(then: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "hungry.py").write_text(WORKING + HUNGRY.format(then=then), encoding="utf-8")
    reference = Reference((str(tmp_path / "hungry.py"),), words="working", way=(sys.executable,))
    assert starve(reference, "out", 0.1, 1 << 24)[0] == outcome


@pytest.mark.slow
def test_some_hunger(tmp_path: Path) -> None:
    run_short("memory", tmp_path)
