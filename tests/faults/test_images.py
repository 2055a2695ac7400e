from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.images import IMAGES
from tests.faults.trials import run_part

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_short_campaign(tmp_path: Path) -> None:
    trials = run_part(IMAGES, tmp_path, count=IMAGES.short, seed=0, jobs=1)
    assert len(trials) == IMAGES.short
    assert not [(trial.name, trial.outcome, trial.detail) for trial in trials if not trial.good]
