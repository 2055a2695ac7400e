"""Clocks that jump by hours while a command runs."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.references import Reference, converting, draws, scratch, sweeping, training, write_images
from tests.faults.results import differences, line_differences
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.trials import Outcome

HOUR_S = 3600.0
#: `sitecustomize` of the command: what asks for the time of day gets one that jumps; monotonic clocks do not.
JUMPING = """
import os, time
_began, _at, _by = time.monotonic(), float(os.environ["JUMP_AT"]), float(os.environ["JUMP_BY"])
_time, _time_ns = time.time, time.time_ns
def _jump():
    return _by if time.monotonic() - _began > _at else 0.0
time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + int(_jump() * 1e9)
"""


def jump(reference: Reference, output: str, share: float, by_s: float) -> tuple[Outcome, str]:
    """Run a command while the clock jumps: it comes to the same, and nothing took less than no time."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        (folder / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
        at_s = reference.loading_s() + share * reference.working_s()
        command = reference.start(folder, cold=True, first=str(folder), JUMP_AT=str(at_s), JUMP_BY=str(by_s))
        if bad := command.end().fault(0):
            return bad
        whole, made = reference.folder / output, folder / output
        if odd := list(odd_times(made, most_s=HOUR_S / 2)):
            return "wrong", f"took {', '.join(odd)}"
        if output == "zoo":
            return line_differences(whole, made) or ("held", "")
        found = differences(whole, made)
        return ("wrong", ", ".join(found)) if found else ("held", "")


def odd_times(folder: Path, most_s: float) -> Iterator[str]:
    """Give the figures of seconds in a folder that are negative, or longer than a command can have taken."""
    for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.jsonl")]):
        text = file.read_text(encoding="utf-8")
        for content in map(json.loads, text.splitlines() if file.suffix == ".jsonl" else [text]):
            yield from (f"{value:.0f} s in {file.name}" for value in _seconds(content) if not 0 <= value < most_s)


def _seconds(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for key, value in content.items():
            if "seconds" in key and isinstance(value, float):
                yield value
            yield from _seconds(value)
    elif isinstance(content, list):
        for value in content:
            yield from _seconds(value)


def cases(count: int, seed: int) -> Iterator[Case]:
    """Jump back and forth by up to two days."""
    ways = (
        ("finetune", Reference(training(write_images(scratch() / "images")), words="reading the data"), "run"),
        ("convert", Reference(converting("--no-onnx"), words="building the model"), "out"),
        ("zoo run", Reference(sweeping("test_resnet"), words=" to do"), "zoo"),
    )
    for number in range(count):
        name, reference, output = ways[number % len(ways)]
        drawn = draws(seed, number)
        by_s = (1 if number % 2 else -1) * HOUR_S * drawn.uniform(1, 48)
        trial = partial(jump, reference, output, drawn.random(), by_s)
        yield Case(f"{number} of seed {seed}: {name}, {by_s / HOUR_S:+.0f} h", f"a jump of the clock in {name}", trial)


CLOCK = Part("clock", cases, full=12, short=2, timeout_s=300)
