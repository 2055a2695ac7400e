"""Interrupts and requests to end, at any moment of every long command."""

from __future__ import annotations

import signal
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.processes import Command, strays
from tests.faults.references import (
    LOADING_EVERY,
    SIZE,
    Moment,
    Reference,
    converting,
    draws,
    moment,
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

    from tests.faults.trials import Outcome

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SECONDS_OF_PYTHON = 0.3  # until spdify runs at all; before, an interrupt is Python's own matter
TOLD = "interrupted; nothing was left half-written"


@dataclass(frozen=True)
class Long:
    """A long command: its undisturbed run, what it writes, and what goes on with it where something does."""

    reference: Reference
    output: str = ""
    onwards: tuple[str, ...] = ()


def interrupt(long: Long, when: Moment, number: signal.Signals) -> tuple[Outcome, str]:
    """Send a signal: the command ends with the right exit code, and nothing is half-written."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        when.prepare(long.reference)
        command = long.reference.start(folder, cold=when.loading)
        when.wait(command, long.reference, least_s=SECONDS_OF_PYTHON)
        command.process.send_signal(number)
        done = command.end()
        if bad := done.fault(0, CODES[number]):
            return bad
        if done.code == CODES[signal.SIGINT] and TOLD not in done.err:
            return "wrong", f"not told: {done.err[-300:]}"
        if left := strays(folder):
            return "wrong", f"left behind: {', '.join(left)}"
        if not long.output or not (folder / long.output).exists():
            return ("wrong", "no result") if long.output and done.code == 0 else ("held", f"exit code {done.code}")
        return _go_on(long, folder, done.code or 0)


def _go_on(long: Long, folder: Path, code: int) -> tuple[Outcome, str]:
    """See that what is there is complete, or becomes so."""
    if code and long.onwards and (bad := Command(long.onwards, folder, name="again").end().fault(0)):
        return bad
    whole, made = long.reference.folder / long.output, folder / long.output
    if long.output == "zoo":
        return line_differences(whole, made) or ("held", f"exit code {code}, then the same lines")
    if made.is_file():
        return (
            ("held", f"exit code {code}, complete") if made.read_bytes() == whole.read_bytes() else ("wrong", made.name)
        )
    # The page of a study gives speeds.
    found = [name for name in differences(whole, made) if long.output != "study" or "/" in name]
    return ("wrong", ", ".join(found)) if found else ("held", f"exit code {code}, then the same")


def long_commands(bundle: Path, images: Path) -> dict[str, Long]:
    """Give every long command of the command line."""
    data, model = f"imagefolder:{images}", ("timm:test_resnet", *SIZE)
    resume = ("finetune", "--resume")
    return {
        "convert": Long(Reference(converting(), words="building the model"), "out"),
        "finetune": Long(Reference(training(images), words="reading the data"), "run", (*resume, "run")),
        "zoo run": Long(Reference(sweeping(), words=" to do"), "zoo", (*sweeping(), "--resume")),
        "export": Long(Reference(("export", str(bundle), "-o", "made", "-v"), words="opening the model"), "made"),
        "study": Long(Reference(studying(images), words="reading the data"), "study", (*resume, "study")),
        "report": Long(
            Reference(("report", *model, "--html", "-o", "page.html", "-v"), words="comparing"), "page.html"
        ),
        "bench": Long(Reference(("bench", *model, "--rounds", "3", "-v"), words="opening the model")),
        "evaluate": Long(Reference(("evaluate", str(bundle), "--data", data, "-v"), words="opening the model")),
    }


def cases(count: int, seed: int) -> Iterator[Case]:
    """Go through the commands in turn; every third signal is a request to end."""
    home = scratch()
    bundle = Reference(converting("--no-onnx", "--num-classes", "2"), words="building the model")
    longs = long_commands(bundle.folder / "out", write_images(home / "images"))
    for number in range(count):
        name = list(longs)[number % len(longs)]
        sent = signal.SIGTERM if number % 3 == 2 else signal.SIGINT
        # Each command comes in turn; in the third round all are still loading.
        when = moment(draws(seed, number), number // len(longs) + LOADING_EVERY - 3)
        trial = partial(_with, bundle, partial(interrupt, longs[name], when, sent))
        yield Case(f"{number} of seed {seed}: {name}", f"{sent.name} to {name}", trial)


def _with(bundle: Reference, trial: partial[tuple[Outcome, str]]) -> tuple[Outcome, str]:
    """Have the bundle made that commands begin with, then try."""
    bundle.working_s()
    return trial()


INTERRUPTS = Part("interrupts", cases, full=40, short=3, timeout_s=300)
