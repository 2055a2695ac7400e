from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.interrupts import Long, interrupt
from tests.faults.references import Moment, Reference
from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.trials import Outcome

WORKING = "import os, sys, time\nprint('working', file=sys.stderr, flush=True)\n"
#: Takes no notice, shows its traceback, leaves a stage behind, says nothing.
CAUGHT = "try:\n    time.sleep(2)\nexcept KeyboardInterrupt:\n    "
TOLD = "print('interrupted; nothing was left half-written', file=sys.stderr)"
CARELESS = {
    "deaf": (f"{CAUGHT}sys.exit(1)\n", "wrong"),
    "loud": ("time.sleep(2)\n", "traceback"),
    "untidy": (f"os.mkdir('.spdify.x.partial')\n{CAUGHT}{TOLD}; sys.exit(130)\n", "wrong"),
    "silent": (f"{CAUGHT}sys.exit(130)\n", "wrong"),
}


@pytest.mark.parametrize("name", CARELESS)
def test_bad_manners_are_told(name: str, tmp_path: Path) -> None:
    body, expected = CARELESS[name]
    (tmp_path / "careless.py").write_text(f"{WORKING}{body}", encoding="utf-8")
    reference = Reference((str(tmp_path / "careless.py"),), words="working", way=(sys.executable,))
    found: tuple[Outcome, str] = interrupt(Long(reference), Moment(loading=False, share=0.3), signal.SIGINT)
    assert found[0] == expected, found


@pytest.mark.slow
def test_some_interrupts(tmp_path: Path) -> None:
    run_short("interrupts", tmp_path)
