"""Trials of a fault campaign: each in a forked process of its own, its end on the disk as soon as it is there."""

from __future__ import annotations

import json
import tempfile
import traceback
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import pytest
import torch

from spdify.zoo.workers import Job, Limits, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

#: What a trial may come to. The first two are what is promised.
Outcome = Literal["held", "refused", "wrong", "traceback", "hang", "lost", "doubled", "escaped", "ran code", "crash"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
GOOD: tuple[Outcome, ...] = ("held", "refused")


@dataclass(frozen=True)
class Case:
    """Something to try.

    Attributes:
        name: Unique in its part, the same in every run with one seed: enough to run it alone.
        fault: What is done to the program, in a few words; a row of the table each.
        run: Gives what came of it, and why in words where that is not plain.
    """

    name: str
    fault: str
    run: Callable[[], tuple[Outcome, str]]


@dataclass(frozen=True)
class Part:
    """Cases of one kind.

    Attributes:
        name: Of the part, and of its file.
        cases: Gives `count` cases from a seed; a longer run begins with the cases of a shorter one.
        full: How many are the campaign.
        short: How many CI runs.
        timeout_s: Seconds after which a case hangs.
    """

    name: str
    cases: Callable[[int, int], Iterable[Case]]
    full: int
    short: int
    timeout_s: float


@dataclass(frozen=True)
class Trial:
    """A line of a part's file."""

    name: str
    fault: str
    outcome: Outcome
    detail: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it came to what is promised."""
        return self.outcome in GOOD


def run_part(part: Part, folder: Path, *, count: int, seed: int, jobs: int) -> list[Trial]:
    """Run the cases that have no line in the folder yet, and give all trials."""
    file = folder / f"{part.name}.jsonl"
    done = {trial.name for trial in read_trials(file)}
    cases = {case.name: case for case in part.cases(count, seed)}
    torch.set_num_threads(1)  # a fork does not take a pool of threads along
    left = [Job(name, partial(_payload, case)) for name, case in cases.items() if name not in done]
    limits = Limits(jobs=jobs, timeout_s=part.timeout_s, memory_gb=max(14.0, 4.0 * jobs))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        own_temporary_folder(),
        file.open("a", encoding="utf-8") as lines,
        closing(Workers(limits).run(left)) as ended,
    ):
        for end in ended:
            if end.payload is None:
                outcome, detail = "hang" if end.failure == "timeout" else "crash", end.detail
            else:
                outcome, detail = json.loads(end.payload)
            trial = Trial(end.name, cases[end.name].fault, outcome, detail, round(end.seconds, 2))
            lines.write(json.dumps(asdict(trial)) + "\n")
            lines.flush()
    return [trial for trial in read_trials(file) if trial.name in cases]


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Have what trials leave in temporary folders, killed as they are, go away at the end."""
    with tempfile.TemporaryDirectory(prefix="spdify-faults-") as folder, pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", folder)
        patched.setattr("tempfile.tempdir", None)
        yield


def _payload(case: Case) -> bytes:
    torch.set_num_threads(1)  # makes the broken pool of the fork anew
    try:
        came_to = case.run()
    except BaseException:  # noqa: BLE001 - a fault of the trial's own: where it was is needed to mend it
        came_to = ("crash", traceback.format_exc()[-1000:])
    return json.dumps(came_to).encode()


def read_trials(file: Path) -> Iterator[Trial]:
    """Read the lines of a part."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            yield Trial(**json.loads(line))


def table(found: Sequence[tuple[str, Sequence[Trial]]]) -> str:
    """Sum up the trials of all parts in a table (Markdown): a row for every part, a column for every outcome."""
    heads = ["part", "kinds of fault", "trials", *OUTCOMES]
    rows = [heads, ["---", *["--:"] * (len(heads) - 1)]]
    rows += [[part, *_figures(trials)] for part, trials in found]
    rows.append(["**all**", *_figures([trial for _, trials in found for trial in trials])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _figures(trials: Sequence[Trial]) -> list[str]:
    counted = Counter(trial.outcome for trial in trials)
    faults = len({trial.fault for trial in trials})
    return [f"{number:,}" for number in (faults, len(trials), *(counted[outcome] for outcome in OUTCOMES))]
