"""A training run, from wherever its folder says that it is to its end."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spdify.bundle import read_record
from spdify.bundle.locking import locked
from spdify.datasets import Pixels, fitted
from spdify.errors import BundleError, CheckFailedError, ExportError, SpdifyError, TrainingError
from spdify.graph.census import take_census
from spdify.pipeline.conversion import require_verified
from spdify.pipeline.loading import build_converted, load
from spdify.pipeline.run_settings import training_of
from spdify.pipeline.starting import export_trained, read_start, write_trained
from spdify.records import EpochResult, TrainingResult
from spdify.reporting import measure
from spdify.training import Share, Trainer, carried_masks, make_batches, size_cost_of
from spdify.training.trainer import DIVERGED_HINT, repeatable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator
    from torch import nn

    from spdify.datasets import DataSet, Images
    from spdify.pipeline.progress import Progress
    from spdify.pipeline.run_folder import RunFolder
    from spdify.pipeline.starting import Start
    from spdify.records import BundleRecord, TrainingRun


def train_run(
    folder: RunFolder, dataset: DataSet, original: nn.Module | None, accelerator: Accelerator, progress: Progress
) -> TrainingResult:
    """Train from where the folder says that the run is, to its end."""
    run = folder.run()
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(locked(folder.path))
            folder.clean()
        stack.enter_context(repeatable(run.machine, accelerator.device))
        network = load(folder.start, model=original)
        start = read_start(folder.start, network)
        trainer = _make_trainer(run, start, folder, dataset, original, accelerator, progress)
        history: list[EpochResult] = []
        if (saved := folder.load_state()) is not None:
            state, history = saved
            try:
                trainer.load_state(state)
                _require_all_epochs(trainer.epoch, history)
            except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise BundleError(
                    f"cannot resume {folder.path}: its state is not of this network: {reason}",
                    hint="The folder is damaged: start the run anew in another one.",
                ) from error
            progress.note(f"resumed after epoch {trainer.epoch} of {run.recipe.epochs}")
        log = folder.log if accelerator.is_main_process else _silent
        log(f"{'resumed' if history else 'started'} after epoch {trainer.epoch}, {accelerator.num_processes} processes")
        if accelerator.log_with:
            _init_trackers(accelerator, run)
        validation = dataset.validation
        if isinstance(validation, Pixels) and run.preprocessing.crop_pct == 1:  # else it would be cropped twice
            validation = fitted(validation, run.preprocessing)  # once, not in every epoch
        while trainer.epoch < run.recipe.epochs:
            history.append(_epoch(trainer, validation, run))
            if accelerator.is_main_process:
                _save(folder, start, run, trainer, history)
            if accelerator.log_with:
                accelerator.log(_figures(history[-1]), step=history[-1].epoch)
            log(" ".join(f"{name}={value:.6g}" for name, value in _figures(history[-1]).items()))
            progress.epoch(history[-1], run.recipe.epochs)
        accelerator.wait_for_everyone()
        result = _finish(folder, start, run, trainer, history, dataset, original, accelerator, progress)
        log(f"ended: epoch {result.best_epoch}, {result.split} top-1 {result.evaluation.top1:.6g}")
        for tracker in accelerator.trackers:
            tracker.finish()
    return result


def _require_all_epochs(epoch: int, history: Sequence[EpochResult]) -> None:
    """Refuse a history of other epochs than those that the state has behind it.

    Raises:
        ValueError: It is one.
    """
    if type(epoch) is not int or epoch != len(history) or any(r.epoch != i for i, r in enumerate(history, start=1)):
        msg = f"it is after epoch {epoch!r:.20}, with the figures of {len(history)}"
        raise ValueError(msg)


def _silent(_: str) -> None:
    """Log nothing: the first process does."""


def _make_trainer(  # noqa: PLR0913 - all that a training needs
    run: TrainingRun, start: Start, folder: RunFolder, dataset: DataSet, original: nn.Module | None,
    accelerator: Accelerator, progress: Progress,
) -> Trainer:  # fmt: skip
    recipe, epochs = run.recipe, run.recipe.epochs
    share = Share(accelerator.process_index, accelerator.num_processes, run.machine.parts)
    batches = make_batches(
        dataset.train, recipe, run.preprocessing, classes=len(dataset.classes), mirrored=dataset.mirrored,
        seed=run.seed, share=share, device=accelerator.device, workers=run.machine.workers,
    )  # fmt: skip
    trainer: Trainer

    def tell(step: int, steps: int, loss: float) -> None:
        progress.batch(trainer.epoch + 1, epochs, step, steps, loss)

    trainer = Trainer(
        start.network, batches, recipe, accelerator=accelerator, machine=run.machine, seed=run.seed,
        masks=_masks(start.record, original, folder.start), progress=tell,
        size_cost=size_cost_of(start.network, recipe, run.preprocessing),
    )  # fmt: skip
    return trainer


def _masks(record: BundleRecord, original: nn.Module | None, folder: Path) -> dict[str, Any]:
    """Find which weights are new since the network was last trained."""
    before = record.trainings[-1].plans if record.trainings else 0
    network = build_converted(record, original, folder, plans=before)
    return carried_masks(network.state_dict(), record.plans[before:])


def _epoch(trainer: Trainer, validation: Images | None, run: TrainingRun) -> EpochResult:
    result = trainer.run_epoch()
    if validation is None:
        return result
    found = trainer.evaluate(validation, run.preprocessing).evaluation()
    if not math.isfinite(found.loss):
        raise TrainingError(
            f"cannot go on training: the validation loss became {found.loss} in epoch {result.epoch}",
            hint=DIVERGED_HINT,
        )
    return result.model_copy(update={"validation": found})


def _best(history: Sequence[EpochResult]) -> EpochResult:
    """Give the first epoch of the highest validation accuracy; the last one where nothing was held back."""
    if history[-1].validation is None:
        return history[-1]
    return max(history, key=lambda result: result.validation.top1 if result.validation else -math.inf)


def _save(folder: RunFolder, start: Start, run: TrainingRun, trainer: Trainer, history: Sequence[EpochResult]) -> None:
    """Write what an epoch has led to; the state comes last, so that a run resumed before it writes the same again."""
    result = history[-1]
    training = training_of(run, start.record, epoch=result.epoch).model_copy(update={"validation": result.validation})
    if _best(history) is result:
        write_trained(folder.best, start, trainer.measured, training, overwrite=True)
    write_trained(folder.last, start, trainer.measured, training, overwrite=True)
    folder.save_state(trainer.state(), history)
    folder.save_tables(history)


def _finish(  # noqa: PLR0913 - all that a run is made of
    folder: RunFolder, start: Start, run: TrainingRun, trainer: Trainer, history: Sequence[EpochResult],
    dataset: DataSet, original: nn.Module | None, accelerator: Accelerator, progress: Progress,
) -> TrainingResult:  # fmt: skip
    """Measure the best network on the test images, and write it with what was found."""
    split: Literal["test", "validation", "train"] = (
        "test" if dataset.test is not None else "validation" if dataset.validation is not None else "train"
    )
    progress.step(f"measuring the best network on the {split} images")
    best = load(folder.best, model=original)
    trainer.measured.load_state_dict(best.state_dict())
    scores = trainer.evaluate(dataset.splits[split], run.preprocessing)
    result = TrainingResult(
        model=run.model,
        best_epoch=_best(history).epoch,
        chosen_by="validation" if dataset.validation is not None else "last epoch",
        split=split,
        evaluation=scores.evaluation(),
        classes=dataset.classes,
        cost=measure(best, take_census(best, start.inputs, mode="eval")),
        images_per_second=sum(r.images_per_second for r in history) / len(history),
        seconds=sum(r.seconds for r in history),
    )
    if accelerator.is_main_process:
        folder.save_scores(scores)
        fault = _write_best(folder, start, run, best, history, result, progress)
        folder.save_page(start.record, result, history, scores)
        folder.save_result(result)
        if fault is not None:
            raise fault
    return result


def _write_best(  # noqa: PLR0913 - all that a bundle says
    folder: RunFolder, start: Start, run: TrainingRun, best: nn.Module, history: Sequence[EpochResult],
    result: TrainingResult, progress: Progress,
) -> SpdifyError | None:  # fmt: skip
    """Write the best network with its test figures and ONNX; give the fault where ONNX alone cannot be had."""
    chosen = _best(history)
    found = {"validation": chosen.validation, "test": result.evaluation if result.split == "test" else None}
    training = training_of(run, start.record, epoch=chosen.epoch).model_copy(update=found)
    write = partial(write_trained, folder.best, start, best, training, overwrite=True)
    if not run.onnx:
        write()
        return None
    progress.step("exporting to ONNX")
    try:
        write(export=partial(export_trained, best))
    except ExportError as error:
        write()
        return ExportError(f"{error.message} The run is complete all the same, in {folder.path}.", hint=error.hint)
    try:
        require_verified(read_record(folder.best).onnx, folder.best)
    except CheckFailedError as error:
        return error
    return None


def _figures(result: EpochResult) -> dict[str, float]:
    """Give an epoch's figures by name, for trackers."""
    figures = {
        "epoch": float(result.epoch),
        "lr": result.lr,
        "train/loss": result.train_loss,
        "train/images_per_second": result.images_per_second,
    }
    found = result.validation
    if found is not None:
        figures |= {"validation/top1": found.top1, "validation/top5": found.top5, "validation/loss": found.loss}
    return figures


def _init_trackers(accelerator: Accelerator, run: TrainingRun) -> None:
    """Start the trackers that were asked for; none of them may ask a question."""
    # Without a key wandb would ask for one: offline, its files lie in the run's logs and can be sent later.
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    flat = {f"recipe/{key}": str(value) for key, value in run.recipe} | {"model": run.model, "data": run.known.name}
    directory = str(accelerator.project_dir)
    Path(directory).mkdir(exist_ok=True)
    accelerator.init_trackers("spdify", config=flat, init_kwargs={"wandb": {"dir": directory, "mode": mode}})
