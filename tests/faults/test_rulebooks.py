from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_short_campaign(tmp_path: Path) -> None:
    run_short("rulebooks", tmp_path)
