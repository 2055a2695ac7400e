"""Two processes that are started at nearly one moment on one output folder."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.processes import strays
from tests.faults.references import (
    Reference,
    converting,
    draws,
    scratch,
    studying,
    sweeping,
    training,
    write_images,
)
from tests.faults.results import differences, line_differences
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.processes import Done
    from tests.faults.trials import Outcome

RECORDS = {"spdify.json", "report.json", "report.md", "README.md"}  # hold the command
#: What the one says that does not win.
WORDS = ("is not empty", "another run is writing there", "holds a run already", "cannot write")


def write_both(reference: Reference, output: str, offset_s: float, *, overwrite: bool = False) -> tuple[Outcome, str]:
    """Start two: one wins, the other says so, and what is there is the winner's."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        reference.working_s()
        more = ("--overwrite",) if overwrite else ()
        first = reference.start(folder, *more, name="first")
        time.sleep(offset_s)
        second = reference.start(folder, *more, name="second")
        ends = [first.end(), second.end()]
        if bad := judge(ends, overwrite=overwrite):
            return bad
        if left := strays(folder):
            return "wrong", f"left behind: {', '.join(left)}"
        whole, made = reference.folder / output, folder / output
        if output == "zoo":
            return line_differences(whole, made) or ("held", _told(ends))
        found = [name for name in differences(whole, made) if _counts(name, output, overwrite=overwrite)]
        return ("wrong", ", ".join(found)) if found else ("held", _told(ends))


def judge(ends: list[Done], *, overwrite: bool) -> tuple[Outcome, str] | None:
    """Say what is wrong with the two ends."""
    for done in ends:
        if bad := done.fault(0, 1, 2):
            return bad
    lost = [done for done in ends if done.code]
    if len(lost) == len(ends):
        return "lost", " / ".join(done.err[-200:] for done in ends)
    if not lost:  # in turn, where each may replace what is there
        return None if overwrite else ("doubled", "both say that they have written")
    if not any(words in lost[0].err for words in WORDS):
        return "wrong", f"the loser does not say why: {lost[0].err[-300:]}"
    return None


def _counts(name: str, output: str, *, overwrite: bool) -> bool:
    """Whether a difference counts: a study's page gives speeds, and the command is another with --overwrite."""
    return not (output == "study" and "/" not in name) and not (overwrite and name in RECORDS)


def _told(ends: list[Done]) -> str:
    return " / ".join(f"{done.code}: {done.err.strip().splitlines()[-1][:100] if done.code else ''}" for done in ends)


def cases(count: int, seed: int) -> Iterator[Case]:
    """Go through the commands that write folders; the second is up to two seconds late."""
    images = write_images(scratch() / "images")
    convert = Reference(converting("--no-onnx"), words="building the model")
    ways = (
        ("convert", convert, "out", False),
        ("finetune", Reference(training(images), words="reading the data"), "run", False),
        ("zoo run", Reference(sweeping("test_resnet"), words=" to do"), "zoo", False),
        ("convert --overwrite", convert, "out", True),
        ("study", Reference(studying(images), words="reading the data"), "study", False),
    )
    for number in range(count):
        name, reference, output, overwrite = ways[number % len(ways)]
        offset = 2.0 * draws(seed, number).random() ** 2  # mostly close together
        trial = partial(write_both, reference, output, offset, overwrite=overwrite)
        yield Case(f"{number} of seed {seed}: {name}, {offset:.2f} s", f"two of {name} on one folder", trial)


WRITERS = Part("writers", cases, full=25, short=2, timeout_s=300)
