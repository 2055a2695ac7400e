"""The folder of a training run: what it began with, where it is, the last and the best network."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from spdify.bundle import read_json, write_text
from spdify.bundle.places import STAGE, staged_file, write_error
from spdify.errors import BundleError, require_plain
from spdify.records import EpochResult, TrainingResult, TrainingRun
from spdify.reporting.pictures import Line, line_chart
from spdify.reporting.studies import learning_curve
from spdify.reporting.training_page import training_page
from spdify.training import Scores, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from spdify.records import BundleRecord

RUN, LOG, RESULT, RESULTS, CURVES, PAGE, STATE, SCORES = (
    "run.json", "train.log", "result.json", "results.csv", "curves.svg", "report.html", "state.safetensors",
    "scores.safetensors",
)  # fmt: skip
COLUMNS = (
    "epoch", "lr", "train_loss", "validation_loss", "validation_top1", "validation_top5",
    "validation_calibration_error", "images_per_second", "seconds",
)  # fmt: skip
FAULTS = (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError)
RUN_HINT = "A run is a folder that `spdify finetune` wrote."


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one training run."""

    path: Path

    @property
    def start(self) -> Path:
        """The bundle that it began with."""
        return self.path / "start"

    @property
    def last(self) -> Path:
        """The bundle after the last epoch."""
        return self.path / "last"

    @property
    def best(self) -> Path:
        """The bundle of the best epoch."""
        return self.path / "best"

    def run(self) -> TrainingRun:
        """Read `run.json`.

        Raises:
            BundleError: It is missing, or not what it should be.
        """
        return read_json(self.path / RUN, TrainingRun, missing=RUN_HINT, damaged=RUN_HINT)

    def result(self) -> TrainingResult | None:
        """Read `result.json`; None where the run has not come to its end."""
        file = self.path / RESULT
        return read_json(file, TrainingResult, missing=RUN_HINT, damaged=RUN_HINT) if file.exists() else None

    def clean(self) -> None:
        """Remove what a killed run was writing, and put back what had stepped aside for it."""
        for kept in self.path.glob(f"{STAGE}*.old/*"):
            if not (self.path / kept.name).exists():
                kept.rename(self.path / kept.name)
        for stray in self.path.glob(f"{STAGE}*"):
            if stray.is_dir():
                shutil.rmtree(stray, ignore_errors=True)
            else:  # of an earlier release
                stray.unlink(missing_ok=True)

    def save_state(self, state: dict[str, Any], history: Sequence[EpochResult]) -> None:
        """Write where a training is, so that it is there whole or as it was before.

        Raises:
            BundleError: It cannot be written.
        """
        tensors, text = pack(state)
        past = json.dumps([result.model_dump(mode="json") for result in history])
        self._save_tensors(STATE, tensors, {"state": text, "history": past})

    def _save_tensors(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        """Write a file that appears when it is complete, and on the disk."""
        with staged_file(self.path / name) as part:
            save_file(tensors, part, metadata=metadata)

    def history(self) -> list[EpochResult]:
        """Read the figures of the epochs that were finished; none of the weights.

        Raises:
            BundleError: The file is damaged.
        """
        file = self.path / STATE
        if not file.exists():
            return []
        try:
            require_plain(file)
            with safe_open(file, framework="pt") as opened:
                past = json.loads(opened.metadata()["history"])
            return [EpochResult.model_validate(item) for item in past]
        except FAULTS as error:
            raise _damaged(file, error) from error

    def load_state(self) -> tuple[dict[str, Any], list[EpochResult]] | None:
        """Read where a training was; None where no epoch was finished.

        Raises:
            BundleError: The file is damaged.
        """
        file = self.path / STATE
        if not file.exists():
            return None
        try:
            require_plain(file)
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata()
            return unpack(load_file(file), metadata["state"]), self.history()
        except FAULTS as error:
            raise _damaged(file, error) from error

    def log(self, words: str) -> None:
        """Add a line to `train.log`, with the time."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as stream:
                stream.write(f"{now} {words}\n")
        except OSError as error:
            raise write_error(self.path / LOG, error) from error

    def save_tables(self, history: Sequence[EpochResult]) -> None:
        """Write `results.csv` and `curves.svg`."""
        write_text(self.path / RESULTS, results_csv(history), overwrite=True)
        write_text(self.path / CURVES, curves(history, self.path.name), overwrite=True)

    def save_page(
        self, record: BundleRecord, result: TrainingResult, history: Sequence[EpochResult], scores: Scores
    ) -> None:
        """Write `report.html`.

        Args:
            record: Of the bundle that the run began with.
            result: What it came to.
            history: Every epoch.
            scores: What `result` was made from.
        """
        pairs = Counter(zip(scores.labels.tolist(), scores.predicted.tolist(), strict=True))
        page = training_page(self.run(), record, result, history, curves(history, self.path.name), pairs)
        write_text(self.path / PAGE, page, overwrite=True)

    def save_result(self, result: TrainingResult) -> None:
        """Write `result.json`: from then on the run has ended."""
        write_text(self.path / RESULT, result.model_dump_json(indent=2) + "\n", overwrite=True)

    def save_scores(self, scores: Scores) -> None:
        """Write what the best network says of each image."""
        self._save_tensors(SCORES, {name: tensor.contiguous() for name, tensor in vars(scores).items()})

    def scores(self) -> Scores:
        """Read them.

        Raises:
            BundleError: They are missing or damaged.
        """
        try:
            return Scores(**load_file(self.path / SCORES))
        except (OSError, SafetensorError, TypeError) as error:
            raise BundleError(f"cannot read {self.path / SCORES}: {error}") from error


def _damaged(file: Path, error: Exception) -> BundleError:
    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
    return BundleError(
        f"cannot read {file}: {reason}", hint="The file is damaged: start the run anew in another folder."
    )


def results_csv(history: Sequence[EpochResult]) -> str:
    """Give one line per epoch; shares from 0 to 1, losses in nats."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for result in history:
        found = result.validation
        measured = (found.loss, found.top1, found.top5, found.calibration_error) if found else ("",) * 4
        shown = (result.epoch, result.lr, result.train_loss, *measured, result.images_per_second, result.seconds)
        table.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in shown])
    return text.getvalue()


def curves(history: Sequence[EpochResult], title: str) -> str:
    """Draw validation accuracy by epoch, or the training loss where nothing was held back."""
    points, up = learning_curve(history)
    line = Line(label=up, kind="converted", points=points)
    return line_chart(title, f"{up} by epoch; {points[-1][1]:.4g} in the end.", [line], across="epoch", up=up)
