from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.trials import Case, Outcome, Part, Trial, read_trials, run_part, table

if TYPE_CHECKING:
    from pathlib import Path


def _die() -> tuple[Outcome, str]:
    os._exit(3)


def _raise() -> tuple[Outcome, str]:
    raise ValueError


def _cases(count: int, seed: int) -> list[Case]:
    def hang() -> tuple[Outcome, str]:
        time.sleep(60)
        return "held", ""

    cases = [
        Case(f"fine {seed}", "nothing", lambda: ("held", "")),
        Case(f"died {seed}", "a crash", _die),
        Case(f"slept {seed}", "a hang", hang),
        Case(f"raised {seed}", "a crash", _raise),
    ]
    return cases[:count]


PART = Part("made", _cases, full=4, short=2, timeout_s=2)


def test_each_end_is_told(tmp_path: Path) -> None:
    found = {trial.name: trial.outcome for trial in run_part(PART, tmp_path, count=4, seed=7, jobs=2)}
    assert found == {"fine 7": "held", "died 7": "crash", "slept 7": "hang", "raised 7": "crash"}


def test_what_has_a_line_is_not_run_again(tmp_path: Path) -> None:
    run_part(PART, tmp_path, count=1, seed=7, jobs=1)
    run_part(PART, tmp_path, count=2, seed=7, jobs=1)
    assert [trial.name for trial in read_trials(tmp_path / "made.jsonl")] == ["fine 7", "died 7"]


@pytest.mark.parametrize(("outcome", "good"), [("held", True), ("refused", True), ("wrong", False), ("lost", False)])
def test_what_is_promised(outcome: Outcome, good: bool) -> None:
    assert Trial("", "", outcome, "", 0.0).good is good


def test_table_counts_by_part() -> None:
    trials = [Trial("a", "x", "held", "", 1.0), Trial("b", "x", "wrong", "", 1.0), Trial("c", "y", "held", "", 1.0)]
    lines = table([("made", trials), ("more", trials[:1])]).splitlines()
    assert lines[2].startswith("| made | 2 | 3 | 2 | 0 | 1 |")
    assert lines[4].startswith("| **all** | 2 | 4 | 3 | 0 | 1 |")
