"""Memory that runs out: for a process, and for a worker of a sweep."""

from __future__ import annotations

import resource
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spdify.zoo.store import RunFolder
from tests.faults.processes import run, strays
from tests.faults.references import Moment, Reference, converting, draws, scratch, sweeping, training, write_images
from tests.faults.results import differences
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.trials import Outcome

USAGE = 2  # exit code
MEGABYTE = 1 << 20


def starve(reference: Reference, output: str, share: float, more_bytes: int) -> tuple[Outcome, str]:
    """Let a process have so much more address space than it has at some moment: it ends well, or says what it lacks."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        reference.working_s()
        command = reference.start(folder)
        Moment(loading=False, share=share).wait(command, reference)
        limited = _limit(command.process.pid, more_bytes)
        done = command.end()
        if bad := done.fault(0, 1):
            return bad
        if done.code and "memory" not in done.err:
            return "wrong", f"does not say what it lacks: {done.err[-300:]}"
        if done.code == 0:
            found = differences(reference.folder / output, folder / output)
            return ("wrong", ", ".join(found)) if found else ("held", "it was enough" if limited else "it had ended")
        if output == "out" and ((folder / output).exists() or strays(folder)):
            return "wrong", f"left behind: {output}, {', '.join(strays(folder))}"
        return "refused", done.err.strip().splitlines()[-2][:300]


def _limit(pid: int, more_bytes: int) -> bool:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    except (OSError, IndexError):
        return False
    return True


def starve_workers(memory_gb: float) -> tuple[Outcome, str]:
    """Let the workers of a sweep have little: each model has its line, and what was lost was lost to memory."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        done = run((*sweeping("test_res*"), "--memory", f"{memory_gb:.2f}"), folder)
        if done.code == USAGE and "Give more by --memory" in done.err and not done.fault(USAGE):
            return "refused", done.err[-300:]
        if bad := done.fault(0):
            return bad
        records = RunFolder(folder / "zoo").results()
        if not records:
            return "lost", "no lines"
        kinds = [record.failure.kind if record.failure else "none" for record in records]
        return ("held", ", ".join(kinds)) if set(kinds) <= {"memory", "none"} else ("wrong", ", ".join(kinds))


def cases(count: int, seed: int) -> Iterator[Case]:
    """Starve conversions, trainings and workers in turn."""
    images = write_images(scratch() / "images")
    ways = (
        ("convert", Reference(converting("--no-onnx"), words="building the model"), "out"),
        ("finetune", Reference(training(images), words="reading the data"), "run"),
    )
    for number in range(count):
        drawn = draws(seed, number)
        if number % 3 == 2:
            memory_gb = drawn.uniform(0.1, 0.5)
            trial, fault = partial(starve_workers, memory_gb), "little memory for the workers of zoo run"
        else:
            name, reference, output = ways[number % 3]
            more = int(drawn.uniform(0, 200) * MEGABYTE)
            trial, fault = partial(starve, reference, output, drawn.random() / 2, more), f"no more memory for {name}"
        yield Case(f"{number} of seed {seed}", fault, trial)


MEMORY = Part("memory", cases, full=30, short=3, timeout_s=300)
