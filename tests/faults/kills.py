"""Killed at any moment: a command is begun again or resumed, and comes to what it would have come to."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.processes import SPDIFY, Command, strays
from tests.faults.references import (
    Moment,
    Reference,
    converting,
    draws,
    moment,
    scratch,
    sweeping,
    training,
    write_images,
)
from tests.faults.results import differences, line_differences
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.trials import Outcome

WORKER_EVERY = 6  # of the trials of the sweep, one of so many kills a worker only
EXPORT_EVERY = 4  # likewise, exports to ONNX
TWICE_EVERY = 5  # of the trials of training, one of so many is killed a second time when it is resumed
LINES = ("results.jsonl", "onnx.jsonl")


def kill_convert(reference: Reference, when: Moment) -> tuple[Outcome, str]:
    """Kill a conversion: its folder is complete or not there, and then made by the same command."""
    with tempfile.TemporaryDirectory() as home:
        folder, whole = Path(home), reference.folder / "out"
        when.prepare(reference)
        _kill(reference.start(folder, cold=when.loading), when, reference)
        left = f"left behind: {', '.join(strays(folder)) or 'nothing'}"
        if (folder / "out").exists():
            return _same(differences(whole, folder / "out"), f"complete; {left}")
        if fault := reference.start(folder, name="again").end().fault(0):
            return fault
        return _same(differences(whole, folder / "out"), f"not there, made again; {left}")


def kill_sweep(reference: Reference, when: Moment) -> tuple[Outcome, str]:
    """Kill a sweep: resumed, it finds the same, and keeps the lines that it had."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        when.prepare(reference)
        _kill(reference.start(folder, cold=when.loading), when, reference)
        before = [_whole_lines(folder / "zoo" / name) for name in LINES]
        if fault := reference.start(folder, "--resume", name="again").end().fault(0):
            return fault
        kept = [_whole_lines(folder / "zoo" / name) for name in LINES]
        if any(now[: len(old)] != old for old, now in zip(before, kept, strict=True)):
            return "lost", "a line that was there is not there any more"
        bad = line_differences(reference.folder / "zoo", folder / "zoo")
        return bad or ("held", f"{sum(map(len, before))} of {sum(map(len, kept))} lines at the kill")


def kill_worker(reference: Reference, when: Moment) -> tuple[Outcome, str]:
    """Kill a worker of a sweep: the sweep goes on, and finds the same."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        when.prepare(reference)
        command = reference.start(folder, cold=when.loading)
        when.wait(command, reference)
        hit = _kill_child(command)
        if fault := command.end().fault(0):
            return fault
        return line_differences(reference.folder / "zoo", folder / "zoo") or ("held", hit)


def kill_training(reference: Reference, whens: tuple[Moment, ...]) -> tuple[Outcome, str]:
    """Kill a training, once or twice: resumed, it comes to the same bit for bit."""
    with tempfile.TemporaryDirectory() as home:
        folder, told = Path(home), []
        for when in whens:
            when.prepare(reference)
        for when in whens:
            _kill(_onwards(reference, folder, cold=when.loading), when, reference)
            told.append("resumed" if (folder / "run").exists() else "begun again")
        done = _onwards(reference, folder).end()
        if done.code == 1 and "error: cannot resume" in done.err:
            return "refused", done.err[-300:]
        if fault := done.fault(0):
            return fault
        if left := strays(folder / "run"):
            return "wrong", f"left in the run: {', '.join(left)}"
        return _same(differences(reference.folder / "run", folder / "run"), ", ".join(told))


def _onwards(reference: Reference, folder: Path, *, cold: bool = False) -> Command:
    """Start what a user runs to go on."""
    if (folder / "run").exists():
        way = reference.way or (SPDIFY if cold else ())
        return Command(("finetune", "--resume", "run", "-v"), folder, way=way)
    return reference.start(folder, cold=cold)


def _kill(command: Command, when: Moment, reference: Reference) -> None:
    when.wait(command, reference)
    command.kill()


def _kill_child(command: Command) -> str:
    """Kill a process that a command has started, as soon as there is one; say whether there was."""
    while command.process.poll() is None:
        if len(everyone := command.everyone()) > 1:
            everyone[-1].kill()
            return "killed a worker"
        time.sleep(0.01)
    return "it had ended"


def _whole_lines(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def _same(found: list[str], words: str) -> tuple[Outcome, str]:
    return ("wrong", f"{words}; not as without a kill: {', '.join(found)}") if found else ("held", words)


def convert_cases(count: int, seed: int) -> Iterator[Case]:
    """Kill conversions, every other one with an export to ONNX."""
    references = [Reference(converting(*more), words="building the model") for more in ((), ("--no-onnx",))]
    for number in range(count):
        run_ = partial(kill_convert, references[number % 2], moment(draws(seed, number), number))
        yield Case(f"{number} of seed {seed}", "SIGKILL of convert", run_)


def sweep_cases(count: int, seed: int) -> Iterator[Case]:
    """Kill sweeps, some of them with an export to ONNX; every sixth trial kills one worker only."""
    plain = Reference(sweeping(), words=" to do")
    export = Reference(sweeping("test_resnet", "family"), words=" to do")
    for number in range(count):
        when, name = moment(draws(seed, number), number), f"{number} of seed {seed}"
        if number % WORKER_EVERY == WORKER_EVERY - 1:
            yield Case(name, "SIGKILL of a worker of zoo run", partial(kill_worker, plain, when))
        else:
            reference = export if number % EXPORT_EVERY == EXPORT_EVERY - 1 else plain
            yield Case(name, "SIGKILL of zoo run", partial(kill_sweep, reference, when))


def training_cases(count: int, seed: int) -> Iterator[Case]:
    """Kill trainings; every fifth a second time."""
    images = write_images(scratch() / "images")
    reference = Reference(training(images), words="reading the data")
    for number in range(count):
        drawn = draws(seed, number)
        times = 2 if number % TWICE_EVERY == TWICE_EVERY - 1 else 1
        whens = tuple(moment(drawn, number) for _ in range(times))
        yield Case(f"{number} of seed {seed}", "SIGKILL of finetune", partial(kill_training, reference, whens))


CONVERT = Part("kill_convert", convert_cases, full=50, short=3, timeout_s=300)
SWEEP = Part("kill_sweep", sweep_cases, full=60, short=3, timeout_s=300)
TRAINING = Part("kill_training", training_cases, full=50, short=3, timeout_s=300)
