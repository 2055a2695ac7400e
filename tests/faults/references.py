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

from tests.faults.commands import SPDIFY, Command

if TYPE_CHECKING:
    from collections.abc import Sequence

LOADING_EVERY = 8  # one moment of so many falls into the import of PyTorch, which takes most of the time
IMAGES = {"train": 16, "val": 6, "test": 6}  # of each of two classes


@dataclass(frozen=True)
class Undisturbed:
    """What an undisturbed run took: seconds until it began to work, and from then on."""

    loading_s: float
    working_s: float


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def scratch() -> Path:
    """Give a folder that is there until this process ends; trials, which are forked, find it."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="spdify-faults-"))
    return Path(_KEPT[-1].name)


class Reference:
    """An undisturbed run of a command, made by whichever trial comes first."""

    def __init__(self, arguments: Sequence[str], words: str, *, way: Sequence[str] = SPDIFY) -> None:
        """Take the command, the words by which it says that it begins to work, and what runs it."""
        self.arguments, self.words, self.way, self.folder = tuple(arguments), words, way, scratch()

    def start(self, folder: Path, *more: str, name: str = "said", **env: str) -> Command:
        """Start the command in another folder."""
        return Command((*self.arguments, *more), folder, way=self.way, name=name, **env)

    def get(self) -> Undisturbed:
        """Run it if nobody has, and give the times."""
        times = self.folder / "times.json"
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not times.exists():
                times.write_text(json.dumps(self._run()), encoding="utf-8")
        return Undisturbed(*json.loads(times.read_text(encoding="utf-8")))

    def _run(self) -> tuple[float, float]:
        began = time.monotonic()
        command = self.start(self.folder)
        assert command.wait_for(self.words), command.end().err
        loaded = time.monotonic()
        done = command.end()
        assert done.code == 0, done.err
        return loaded - began, time.monotonic() - loaded


@dataclass(frozen=True)
class Moment:
    """A share of the time that a command loads, or works."""

    loading: bool
    share: float

    def wait(self, command: Command, reference: Reference) -> None:
        """Wait until a command is there; one that has ended is past it."""
        took = reference.get()
        if self.loading:
            time.sleep(self.share * took.loading_s)
        elif command.wait_for(reference.words):
            time.sleep(self.share * took.working_s)


def draws(seed: int, number: int) -> random.Random:
    """Give the draws of one trial, which do not depend on how many trials there are."""
    return random.Random(f"{seed}:{number}")  # noqa: S311 - no secret


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
    return ("convert", "timm:test_resnet", "--input-size", "3,32,32", "-o", "out", "-v", *more)


def sweeping(filter_: str = "test_[er]*", onnx: str = "none") -> tuple[str, ...]:
    """Give the arguments of a sweep, over five small models."""
    return ("zoo", "run", "-o", "zoo", "--filter", filter_, "--source", "timm", "--jobs", "2", "--onnx", onnx)
