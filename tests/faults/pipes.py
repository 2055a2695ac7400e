"""Output that nobody takes: a reader that goes, a full device, closed streams."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.processes import Command, run, shell
from tests.faults.references import SIZE, Reference, converting, draws, sweeping
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.trials import Outcome

#: What is done to the streams, by the words for it; the exit codes that are in order; whether stdout must be as always.
FAULTS = {
    "the reader of stdout goes": ('"$@" | head -c 1; exit ${PIPESTATUS[0]}', (0, 1), False),
    "stdout is full": ('exec "$@" > /dev/full', (1,), False),
    "stdout is closed": ('exec "$@" >&-', (0, 1), False),
    "stderr is closed": ('exec "$@" 2>&-', (0,), True),
    "stderr is full": ('exec "$@" 2> /dev/full', (0,), True),
    "both are closed": ('exec "$@" >&- 2>&-', (0, 1), False),
}
MODEL = ("timm:test_resnet", *SIZE)
BUNDLE, SWEEP = "BUNDLE", "SWEEP"  # stand for folders
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("--help",), ("--version",), ("schema",), ("rules", "list"), ("rules", "list", "--json"),
    ("rules", "list", "--markdown"), ("rules", "show", "spd"), ("rules", "show", "spd", "--json"),
    ("rules", "check", "spd"), ("zoo", "summarize", SWEEP, "-o", "pages"), ("report", BUNDLE, "-v"),
    ("report", BUNDLE, "--json"), ("report", BUNDLE, "--html"), ("report", *MODEL, "--markdown"),
    ("inspect", *MODEL), ("inspect", *MODEL, "--json", "-v"), ("convert", *MODEL, "--no-onnx", "--json", "-o", "out"),
)  # fmt: skip


def try_stream(fault: str, command: tuple[str, ...], folders: dict[str, Reference]) -> tuple[Outcome, str]:
    """Run a command whose output nobody takes."""
    script, codes, whole = FAULTS[fault]
    with tempfile.TemporaryDirectory() as home:
        arguments = tuple(str(_folder(folders[word])) if word in folders else word for word in command)
        done = Command(arguments, Path(home), way=shell(script)).end()
        if bad := done.fault(*codes):
            return bad
        if fault == "stdout is full" and "error:" not in done.err:
            return "wrong", f"no word about it: {done.err!r}"
        if whole and done.out != (expected := run(arguments, Path(home)).out) and arguments[0] != "convert":
            return "wrong", f"stdout is not as always: {done.out[-200:]!r}, not {expected[-200:]!r}"
        return ("held" if done.code == 0 else "refused"), done.err[-200:]


def _folder(reference: Reference) -> Path:
    reference.working_s()
    return next(reference.folder / name for name in ("out", "zoo") if (reference.folder / name).exists())


def cases(count: int, seed: int) -> Iterator[Case]:
    """Draw pairs of a fault and a command."""
    folders = {
        BUNDLE: Reference(converting("--no-onnx"), words="building the model"),
        SWEEP: Reference(sweeping("test_resnet"), words=" to do"),
    }
    pairs = list(product(FAULTS, COMMANDS))
    draws(seed, 0).shuffle(pairs)
    for fault, command in pairs[:count]:
        yield Case(f"{' '.join(command)}: {fault}", fault, partial(try_stream, fault, command, folders))


PIPES = Part("pipes", cases, full=len(FAULTS) * len(COMMANDS), short=4, timeout_s=240)
