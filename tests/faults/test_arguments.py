from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.arguments import ARGUMENTS
from tests.faults.trials import run_part

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_short_campaign(tmp_path: Path) -> None:
    trials = run_part(ARGUMENTS, tmp_path, count=ARGUMENTS.short, seed=0, jobs=1)
    assert ARGUMENTS.short // 2 <= len(trials) <= ARGUMENTS.short  # hypothesis drops repeats
    assert not [(trial.name, trial.outcome, trial.detail) for trial in trials if not trial.good]
