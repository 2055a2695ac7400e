"""Undisturbed runs, to compare with, and moments in the course of one."""

from __future__ import annotations

import fcntl
import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tests.faults.processes import SPDIFY, Command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOADING_EVERY = 8  # one moment of so many falls into the import of PyTorch, which takes most of the time
SIZE = ("--input-size", "3,32,32")
IMAGES = {"train": 16, "val": 6, "test": 6}  # of each of two classes


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def scratch() -> Path:
    """Give a folder that is there until this process ends; trials, which are forked, find it."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="spdify-faults-"))
    return Path(_KEPT[-1].name)


class Reference:
    """An undisturbed run of a command, made by whichever trial comes first."""

    def __init__(self, arguments: Sequence[str], words: str, *, way: Sequence[str] = ()) -> None:
        """Take the command, the words by which it says that it begins to work, and what runs it."""
        self.arguments, self.words, self.way, self.folder = tuple(arguments), words, way, scratch()

    def start(
        self, folder: Path, *more: str, cold: bool = False, name: str = "said", say: Path | None = None, **env: str
    ) -> Command:
        """Start the command in another folder, `cold` in a new interpreter."""
        way = self.way or (SPDIFY if cold else ())
        return Command((*self.arguments, *more), folder, way=way, name=name, say=say, **env)

    def working_s(self) -> float:
        """Give the seconds that it works; what it makes then lies in the reference's folder."""
        return self._once("working", self._work)

    def loading_s(self) -> float:
        """Give the seconds after which a new interpreter begins to work."""
        return self._once("loading", self._load)

    def _once(self, name: str, measure: Callable[[], float]) -> float:
        file = self.folder / f"{name}.json"
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                file.write_text(json.dumps(measure()), encoding="utf-8")
        return float(json.loads(file.read_text(encoding="utf-8")))

    def _work(self) -> float:
        command = self.start(self.folder)
        assert command.wait_for(self.words), command.end().err
        began = time.monotonic()
        done = command.end()
        assert done.code == 0, done.err
        return time.monotonic() - began

    def _load(self) -> float:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as home:
            command = self.start(Path(home), cold=True)
            assert command.wait_for(self.words), command.end().err
            command.kill()
        return time.monotonic() - began


@dataclass(frozen=True)
class Moment:
    """A share of the time that a command loads, or works."""

    loading: bool
    share: float

    def prepare(self, reference: Reference) -> None:
        """Measure what there is to wait for, before the command is started."""
        reference.working_s()
        if self.loading:
            reference.loading_s()

    def wait(self, command: Command, reference: Reference, *, least_s: float = 0.0) -> None:
        """Wait until a command is there, at least some seconds after its start; one that has ended is past it."""
        if self.loading:
            time.sleep(least_s + self.share * max(reference.loading_s() - least_s, 0.0))
        elif command.wait_for(reference.words):
            time.sleep(self.share * reference.working_s())


def draws(seed: int, number: int) -> random.Random:
    """Give the draws of one trial, which do not depend on how many trials there are."""
    return random.Random(f"{seed}:{number}")


def moment(drawn: random.Random, number: int) -> Moment:
    """Draw a moment."""
    return Moment(number % LOADING_EVERY == LOADING_EVERY - 1, drawn.random())


def write_images(folder: Path, seed: int = 0, images: dict[str, int] | None = None) -> Path:
    """Write some dozens of images of two classes."""
    made = np.random.default_rng(seed)
    for split, count in (images or IMAGES).items():
        for name in ("dark", "light"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = made.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def training(images: Path, *more: str) -> tuple[str, ...]:
    """Give the arguments of a short training on such images: many epochs, so that much is written."""
    return (
        "finetune", "timm:test_resnet", "--data", f"imagefolder:{images}", "--epochs", "6", "--batch-size", "16",
        "--no-onnx", "--device", "cpu", "--proof", "site", "--recipe-set", "mixup=0.2",
        "--recipe-set", "ema_decay=0.9", "-o", "run", "-v", *more,
    )  # fmt: skip


def converting(*more: str) -> tuple[str, ...]:
    """Give the arguments of a short conversion."""
    return ("convert", "timm:test_resnet", *SIZE, "-o", "out", "-v", *more)


def studying(images: Path) -> tuple[str, ...]:
    """Give the arguments of a study: the network and the original, an epoch each."""
    return (
        "study", "timm:test_resnet", "--data", f"imagefolder:{images}", "--rules", "spd", "--seeds", "1",
        "--epochs", "1", "--batch-size", "16", "--device", "cpu", "-o", "study", "-v",
    )  # fmt: skip


def sweeping(filter_: str = "test_[er]*", onnx: str = "none") -> tuple[str, ...]:
    """Give the arguments of a sweep, over five small models."""
    return ("zoo", "run", "-o", "zoo", "--filter", filter_, "--source", "timm", "--jobs", "2", "--onnx", onnx)
