"""Training and measuring under torchrun, with two processes: killed, one or both of them, and the launcher."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from safetensors.torch import load_file

from tests.faults.processes import Command, strays
from tests.faults.references import Moment, Reference, draws, scratch, training, write_images
from tests.faults.results import differences
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.trials import Outcome

TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spdify")
LAUNCHER_EVERY = 5
NEARLY = 2e-4
ROUNDING = 1e-6  # batches of another size are summed up in another order, in float32
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
END_S = 60.0  # in which all have to have ended when one was killed: torchrun asks first, and waits for 30 s


def kill_rank(reference: Reference, when: Moment, rank: int) -> tuple[Outcome, str]:
    """Kill one process: all end, and a resumed run comes to the same."""
    reference.working_s()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        command = reference.start(folder)
        when.wait(command, reference)
        everyone = command.everyone()
        hit = _kill_one(everyone, rank)
        done = command.end(END_S)
        if done.code is None:
            return "hang", f"torchrun still ran {END_S:.0f} s after {hit}"
        if done.code == 0 and hit:
            return "wrong", f"exit code 0 after {hit}"
        return _resume(reference, folder, everyone, hit or "it had ended")


def _kill_one(everyone: list[psutil.Process], rank: int) -> str:
    """Kill a worker of torchrun; say which, or nothing where there is none."""
    workers = everyone[1:3]
    if len(workers) <= rank:
        return ""
    try:
        workers[rank].kill()
    except psutil.NoSuchProcess:
        return ""
    return f"process {rank} was killed"


def kill_launcher(reference: Reference, when: Moment) -> tuple[Outcome, str]:
    """Kill torchrun itself: its workers end, and a resumed run comes to the same."""
    reference.working_s()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        command = reference.start(folder)
        when.wait(command, reference)
        everyone = command.everyone()
        command.process.kill()
        command.process.wait()
        return _resume(reference, folder, everyone, "torchrun was killed")


def _resume(reference: Reference, folder: Path, everyone: list[psutil.Process], words: str) -> tuple[Outcome, str]:
    """See that nobody is left, then go on to the end."""
    _, left = psutil.wait_procs(everyone, timeout=END_S)
    if left:
        for process in left:
            process.kill()
        return "hang", f"{words}; {len(left)} processes were left {END_S:.0f} s later"
    there = (folder / "run").exists()
    again = ("finetune", "--resume", "run", "-v") if there else reference.arguments
    if bad := Command(again, folder, way=TWO, name="again").end().fault(0):
        return bad
    if found := [*strays(folder / "run"), *differences(reference.folder / "run", folder / "run")]:
        return "wrong", f"{words}; not as undisturbed: {', '.join(found)}"
    return "held", f"{words}; {'resumed' if there else 'begun again'}"


def measure(bundle: Reference, images: Path) -> tuple[Outcome, str]:
    """Measure with one process and with two: the same counts and losses."""
    bundle.working_s()
    arguments = ("evaluate", str(bundle.folder / "run" / "best"), "--data", f"imagefolder:{images}", "--json")
    with tempfile.TemporaryDirectory() as home:
        found = []
        for way in ((), TWO):
            done = Command(arguments, Path(home), way=way).end()
            if bad := done.fault(0):
                return bad
            found.append(json.loads(done.out)["evaluation"])
        return compare_measured(*found)


def compare_measured(one: dict[str, float], two: dict[str, float]) -> tuple[Outcome, str]:
    """Say whether two processes have measured what one has: counts exactly, sums to rounding."""
    off = max(abs(one[name] - two[name]) for name in ("loss", "calibration_error"))
    same = all(one[name] == two[name] for name in ("images", "top1", "top5"))
    return ("held" if same and off < ROUNDING else "wrong"), f"counts equal: {same}, loss and calibration to {off:.1e}"


def same_as_one(two: Reference, one: Reference) -> tuple[Outcome, str]:
    """Train one epoch with two processes, and with one in two parts: the same rates, nearly the same weights."""
    one.working_s()
    two.working_s()
    first, second = (load_file(reference.folder / "run" / "last" / "model.safetensors") for reference in (one, two))
    # Each process has its own running statistics, averaged after the epoch; one process has them one after the other.
    off = max(float((first[name] - second[name]).abs().max()) for name in first if not name.endswith(STATISTICS))
    rates = [reference.folder / "run" / "results.csv" for reference in (one, two)]
    equal = len({file.read_text(encoding="utf-8").splitlines()[1].split(",")[1] for file in rates}) == 1
    return (
        "held" if off < NEARLY and equal else "wrong"
    ), f"weights differ by {off:.1e} at most, the rates are the same"


def cases(count: int, seed: int) -> Iterator[Case]:
    """Measure and train once, then kill; every fifth kill hits torchrun itself."""
    images = write_images(scratch() / "images")
    short = ("--epochs", "1")
    two = Reference(training(images), words="reading the data", way=TWO)
    yield from (
        Case("measured", "evaluate under torchrun", partial(measure, two, images)),
        Case(
            "trained", "finetune under torchrun",
            partial(
                same_as_one,
                Reference(training(images, *short), words="reading the data", way=TWO),
                Reference(training(images, *short, "--grad-accum-steps", "2"), words="reading the data"),
            ),
        ),
    )  # fmt: skip
    for number in range(count - 2):
        drawn = draws(seed, number)
        when = Moment(loading=False, share=drawn.random())
        if number % LAUNCHER_EVERY == LAUNCHER_EVERY - 1:
            yield Case(f"{number} of seed {seed}", "SIGKILL of torchrun", partial(kill_launcher, two, when))
        else:
            yield Case(f"{number} of seed {seed}", "SIGKILL of one rank", partial(kill_rank, two, when, number % 2))


LAUNCHES = Part("launches", cases, full=27, short=3, timeout_s=400)
