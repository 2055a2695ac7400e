"""Storage that fails: full, read-only or vanishing, and places that are not what they should be."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.disks import mounts, remount, small_disk
from tests.faults.processes import Command, strays
from tests.faults.references import Moment, Reference, draws, scratch, training, write_images
from tests.faults.trials import Case, Part
from tests.faults.writing import writings

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.faults.trials import Outcome
    from tests.faults.writing import Writing

ENOUGH = "64m"
KILOBYTE = 1 << 10
THESIS = "years of work"


def fill(writing: Writing, share: float) -> tuple[Outcome, str]:
    """Give a disk that holds a share of the result: the command says so, and works when there is room."""
    writing.prepare()
    whole = writing.reference.folder / writing.output
    size = sum(file.stat().st_size for file in ([whole] if whole.is_file() else whole.rglob("*")))
    with small_disk(f"{max(int(share * size / KILOBYTE), 8)}k") as disk:
        return fail_and_go_on(writing, disk, "no space left", lambda: remount(disk, f"size={ENOUGH}"))


def forbid(writing: Writing) -> tuple[Outcome, str]:
    """Give a read-only disk."""
    writing.prepare()
    with small_disk(ENOUGH) as disk:
        remount(disk, "ro")
        return fail_and_go_on(writing, disk, "cannot", lambda: remount(disk, "rw"))


def fail_and_go_on(writing: Writing, folder: Path, told: str, mend: Callable[[], None]) -> tuple[Outcome, str]:
    """Run a command where it cannot write: it says so and leaves nothing half-written, and works afterwards."""
    with tempfile.TemporaryDirectory() as say:
        done = writing.start(folder, Path(say)).end()
        if bad := done.fault(0, 1):
            return bad
        if done.code and told not in done.err.lower():
            return "wrong", f"does not say what is the matter: {done.err[-300:]}"
        if left := strays(folder):
            return "wrong", f"left behind: {', '.join(left)}"
        if done.code and (folder / writing.output).exists() and not writing.onwards:
            return "wrong", f"half-written: {writing.output}"
        mend()
        if done.code and (bad := writing.start(folder, Path(say)).end().fault(0)):
            return bad[0], f"afterwards: {bad[1]}"
        return writing.differences(folder) or _end(done.code, done.err, "there was room enough")


def vanish(writing: Writing, target: str, when: Moment) -> tuple[Outcome, str]:
    """Remove what a command is writing, at some moment: it ends, and works when it is run again."""
    writing.prepare()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as say:
        folder = Path(home) / "work"
        folder.mkdir()
        command = writing.reference.start(folder, say=Path(say))
        when.wait(command, writing.reference)
        for path in {"folder": [folder], "output": [folder / writing.output]}.get(target) or _stages(folder):
            shutil.rmtree(path, ignore_errors=True)
        done = command.end()
        if bad := done.fault(0, 1):
            return bad
        folder.mkdir(exist_ok=True)
        spoilt = writing.differences(folder) is not None
        if spoilt and (bad := writing.start(folder, Path(say)).end().fault(0)):
            return bad[0], f"afterwards: {bad[1]}"
        return writing.differences(folder) or _end(done.code, done.err, "it did not need that any more")


def _stages(folder: Path) -> list[Path]:
    return [folder / stray for stray in strays(folder)]


def lose_images(images: Path, when: Moment, reference: Reference) -> tuple[Outcome, str]:
    """Take the images from a training that reads them from the disk: it says so, and goes on when they are back."""
    reference.working_s()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        shutil.copytree(images, folder / "images")
        command = Command(training(folder / "images", "--from-disk"), folder)
        when.wait(command, reference)
        (folder / "images").rename(folder / "away")
        done = command.end()
        if bad := done.fault(0, 1):
            return bad
        (folder / "away").rename(folder / "images")
        if done.code and (folder / "run").exists():
            bad = Command(("finetune", "--resume", "run", "-v"), folder, name="again").end().fault(0)
        return bad or _end(done.code, done.err, "it did not need them any more")


def odd_place(writing: Writing, kind: str) -> tuple[Outcome, str]:
    """Give an output that is a file or a link: what was there stays, a link is followed."""
    writing.prepare()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as say:
        folder, place = Path(home), Path(home) / writing.output
        if kind != "file":
            place.symlink_to("mine")
        if kind != "dangling link":
            (folder / "mine").mkdir()
        thesis = place if kind == "file" else folder / "mine" / "thesis"
        if kind in {"file", "link to a full folder"}:
            thesis.write_text(THESIS, encoding="utf-8")
        done = writing.start(folder, Path(say)).end()
        if kind in {"file", "link to a full folder"}:
            kept = thesis.is_file() and thesis.read_text(encoding="utf-8") == THESIS
            return done.fault(1, 2) or (_end(done.code, done.err, "") if kept else ("lost", "what was there"))
        if bad := done.fault(0):
            return bad
        return writing.differences(folder) or (("held", "") if place.is_symlink() else ("lost", "the link"))


def _end(code: int | None, said: str, words: str) -> tuple[Outcome, str]:
    """Give a good end: either it worked, or it said why it did not."""
    if not code:
        return "held", words
    return "refused", next((line for line in said.splitlines() if line.startswith("error:")), said)[:200]


def ways(
    drawn: random.Random, kinds: dict[str, Writing], images: Path, lost: Reference
) -> Iterator[tuple[str, partial[tuple[Outcome, str]]]]:
    """Give every fault with every command, with what one trial draws."""
    for name, writing in kinds.items():
        when = Moment(loading=False, share=drawn.random())
        if mounts():
            yield f"no space left for {name}", partial(fill, writing, drawn.uniform(0, 1.2))
            yield f"a read-only disk for {name}", partial(forbid, writing)
        yield f"the folder of {name} vanishes", partial(vanish, writing, "folder", when)
        if name != "report":  # a page is renamed into its place in an instant
            yield f"the output of {name} vanishes", partial(vanish, writing, "output", when)
            yield f"what {name} is writing vanishes", partial(vanish, writing, "stages", when)
        for kind in ("file", "link to a full folder", "link to an empty folder", "dangling link"):
            if name in {"convert", "finetune", "zoo run"}:
                yield f"the output of {name} is a {kind}", partial(odd_place, writing, kind)
    yield "the images vanish", partial(lose_images, images, Moment(loading=False, share=drawn.random()), lost)


def cases(count: int, seed: int) -> Iterator[Case]:
    """Go through all faults in an order that is drawn, again and again."""
    kinds, images = writings(), write_images(scratch() / "images")
    lost = Reference(training(images, "--from-disk"), words="reading the data")
    number = 0
    while number < count:
        drawn = draws(seed, number)
        found = list(ways(drawn, kinds, images, lost))
        drawn.shuffle(found)
        for fault, trial in found[: count - number]:
            yield Case(f"{number} of seed {seed}", fault, trial)
            number += 1


STORAGE = Part("storage", cases, full=40, short=4, timeout_s=300)
