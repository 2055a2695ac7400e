"""Bundles that somebody else has made: changed records, damaged weights, code beside them, links out of the folder."""

from __future__ import annotations

import json
import shutil
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from tests.faults import attacks, templates
from tests.faults.commands import Place, judged, place, run_spdify, run_watched
from tests.faults.mutations import damaged, mutated, shuffled, written
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.faults.trials import Outcome

#: What a bundle goes through; words of the command line, or `load`, the function.
WAYS: dict[str, tuple[str, ...]] = {
    "load": ("load",),
    "inspect": ("inspect", "bundle"),
    "report": ("report", "bundle"),
    "page": ("report", "bundle", "--html", "-o", "page.html"),
    "json": ("report", "bundle", "--json"),
    "two": ("report", "bundle", "other", "--html", "-o", "page.html"),
    "evaluate": ("evaluate", "bundle", "--data", "imagefolder:photos"),
    "python": ("export", "bundle", "--format", "python", "-o", "out"),
    "onnx": ("export", "bundle", "-o", "out"),
    "bench": ("bench", "bundle", "--rounds", "3", "--forms", "original,converted", "--threads", "1"),
    "convert": ("convert", "bundle", "--rules", "cbam", "--no-onnx", "-o", "out"),
    "calibrate": ("calibrate", "bundle", "--data", "imagefolder:photos", "--no-onnx", "-o", "out"),
    "finetune": (
        "finetune", "bundle", "--data", "imagefolder:photos", "--epochs", "1", "--batch-size", "8", "--no-onnx",
        "-o", "run",
    ),
}  # fmt: skip
#: In the order in which trials take turns: what reads most, and what shows most, more often.
TURNS = (
    "load", "page", "evaluate", "inspect", "load", "json", "two", "finetune", "load", "page", "bench", "convert",
    "load", "report", "python", "evaluate", "load", "page", "calibrate", "onnx",
)  # fmt: skip
FILES = ("spdify.json", "spdify.json", "spdify.json", "report.json", "model.safetensors", "config.json")


def bundle_cases(count: int, seed: int) -> Iterable[Case]:
    """Give the attacks that were thought out, then changes at random."""
    templates.warm()
    templates.photos()
    made = [*shuffled(_thought_out(), seed), *(_random(number, seed) for number in range(count))]
    return made[:count]


def try_bundle(
    change: Callable[[Path], object], way: str, *, template: Path, refuses: bool = False
) -> tuple[Outcome, str]:
    """Change a copy of a bundle, and take it one way."""
    with place(templates.root()) as where:
        shutil.copytree(template, where.cwd / "bundle")
        shutil.copytree(template, where.cwd / "other")
        shutil.copytree(templates.photos(), where.cwd / "photos")
        change(where.cwd / "bundle")
        return judged(where, _taken(where, WAYS.get(way) or tuple(way.split())), refuses=refuses)


def _taken(where: Place, words: tuple[str, ...]) -> Any:
    if words != ("load",):
        return run_spdify(where, words)
    return run_watched(where, partial(load_as_told, where.cwd / "bundle"))


def load_as_told(folder: Path) -> None:
    """Load a bundle as somebody's program does: a fault of the user's is told and ends it."""
    import spdify

    try:
        spdify.load(folder)
    except spdify.SpdifyError as error:
        print(error)
        raise SystemExit(1) from None


def _thought_out() -> Iterator[Case]:
    ordinary, gated = templates.bundle(), templates.gated_bundle()
    for way in WAYS:
        yield Case(f"as it is, {way}", "nothing", partial(try_bundle, lambda _: None, way, template=ordinary))
    for attack in attacks.ATTACKS:
        for way in attack.ways:
            run = partial(
                try_bundle, attack.change, way, template=gated if attack.gated else ordinary, refuses=attack.refused
            )
            yield Case(f"{attack.name}, {way}", attack.fault, run)


def _random(number: int, seed: int) -> Case:
    random = Random(f"{seed}/{number}")
    file, way = random.choice(FILES), TURNS[number % len(TURNS)]
    if file == "config.json":
        way = "inspect local-dir:bundle"
    elif file == "report.json":
        way = random.choice(("page", "report", "json"))
    change = partial(_changed, file=file, seed=f"{seed}/{number}")
    run = partial(try_bundle, change, way, template=templates.bundle())
    kind = "damaged bytes" if random.random() < _BYTES or file == "model.safetensors" else "changed record"
    return Case(f"random {number}, {file}, {way}", f"{kind}: {file}", run)


_BYTES = 0.15


def _changed(folder: Path, *, file: str, seed: str) -> None:
    """Change a file of a bundle; the seed says how."""
    random = Random(f"change {seed}")
    path = folder / file
    if file == "model.safetensors":
        path.write_bytes(
            attacks.with_header(path, lambda header: mutated(header, random, times=random.choice((1, 3)))[0])
        )
        if random.random() < 0.5:
            path.write_bytes(damaged(path.read_bytes(), random)[0])
    elif random.random() < _BYTES:
        path.write_bytes(damaged(path.read_bytes(), random)[0])
    else:
        document, _ = mutated(json.loads(path.read_text("utf-8")), random, times=random.choice((1, 1, 2, 5)))
        path.write_text(written(document), encoding="utf-8")


BUNDLES = Part("bundles", bundle_cases, full=800, short=14, timeout_s=120)
