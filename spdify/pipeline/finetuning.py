"""Fine-tuning: from a model and a data set to a run folder, and on from there."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from spdify.bundle import check_output, is_bundle, read_record, staged_folder
from spdify.bundle.locking import locked
from spdify.datasets import DataOptions, DataSet, check_normalisation, mean_and_deviation, open_data
from spdify.errors import BundleError, CheckFailedError, DataError, ExportError, SpdifyError, TrainingError, UsageError
from spdify.exporting import UNVERIFIED
from spdify.graph.census import take_census
from spdify.pipeline.conversion import versions
from spdify.pipeline.converting import ConversionSettings
from spdify.pipeline.loading import build_converted, load
from spdify.pipeline.opening import build_original
from spdify.pipeline.progress import Progress
from spdify.pipeline.run_folder import RUN, RunFolder
from spdify.pipeline.starting import Start, export_trained, make_start, read_start, write_trained
from spdify.records import (
    DataRecord,
    EpochResult,
    Machine,
    Preprocessing,
    Recipe,
    Training,
    TrainingResult,
    TrainingRun,
)
from spdify.reporting import measure
from spdify.training import RECIPES, Share, Trainer, carried_masks, make_accelerator, make_batches, pack
from spdify.training.optimizing import make_optimizer
from spdify.training.trainer import DIVERGED_HINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator

    from spdify.records import BundleRecord
    from spdify.sources import BuildArguments

TRACKERS = ("tensorboard", "wandb")
DEFAULT_CROP = 0.875  # timm's share of the middle that is measured, of images that come in many sizes


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, besides the model and the data.

    Attributes:
        recipe: Epochs, rates, augmentation.
        seed: Of random weights, data order and augmentation.
        machine: What to train on.
        mean: Per channel, of images from 0 to 1; None for the training images' own.
        std: Likewise.
        onnx: Whether the best network is exported at the end.
        track: `tensorboard` and `wandb`, or neither.

    Raises:
        UsageError: A tracker is not known, or not installed.
    """

    recipe: Recipe = RECIPES["finetune"]
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    onnx: bool = True
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what can only fail later."""
        for tracker in self.track:
            if tracker not in TRACKERS:
                raise UsageError(f"cannot track with {tracker!r}", hint=f"Expected {' or '.join(TRACKERS)}.")
            if find_spec(tracker) is None:
                raise UsageError(f"cannot track with {tracker}: it is not installed", hint=f"pip install {tracker}")


def finetune(  # noqa: PLR0913 - a model, a data set, a place, and how
    model: str | Path | nn.Module,
    output: str | Path,
    *,
    data: str | DataSet = "cifar10",
    data_options: DataOptions | None = None,
    conversion: ConversionSettings | None = None,
    training: TrainingSettings | None = None,
    build: BuildArguments | None = None,
    code: str | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> TrainingResult:
    """Convert a model and fine-tune it, or train a bundle as it stands.

    Under `torchrun` or `accelerate launch` every process calls this with the same arguments; the first one converts and
    writes.

    Args:
        model: A source (`resnet18`, `tv:resnet18`, `net.py:factory` …), a bundle's folder, or a module (not changed).
        output: Folder of the run; it appears when the network to begin with is there.
        data: Name of a data set, or one that is open.
        data_options: Where it lies and how it is read; the number of channels follows the model.
        conversion: How a source is converted; with the rules `none` it is trained as it is.
        training: How to train.
        build: How to build a source, as `spdify.convert` takes it; `input_size` (C, H, W) is by default the size of the
            images where all have the same, else the model's own.
        code: For a bundle of somebody's own network, the source that builds the original.
        overwrite: Whether a run that is in `output` may be replaced.
        command: Command line to record.
        progress: Told how it goes.

    Returns:
        What the best network came to; it lies in `output/best`.

    Raises:
        TrainingError: The loss is no number any more, or memory ran out; what was saved is good.
        SpdifyError: The model, the data or the folder cannot be used.
    """
    training, progress = training or TrainingSettings(), progress or Progress()
    arguments: BuildArguments = {**(build or {}), "seed": training.seed}
    folder = RunFolder(Path(output))
    accelerator = _accelerator(training, folder)
    if accelerator.is_main_process:
        check_output(folder.path, overwrite=overwrite, marker=RUN)
    progress.step("reading the data")
    channels = _channels(model, arguments)
    options = _with_channels(data_options or DataOptions(), channels)
    dataset = data if isinstance(data, DataSet) else open_data(data, options)
    if dataset.skipped:
        progress.note(f"{len(dataset.skipped)} images cannot be read and are left out: {_few(dataset.skipped)}")
    if accelerator.is_main_process:
        with ExitStack() as stack:
            if (folder.path / RUN).exists():
                stack.enter_context(locked(folder.path))  # nobody else may be writing what is replaced
            size = arguments.get("input_size") or (dataset.size and (channels, *dataset.size))
            start = make_start(
                model, classes=len(dataset.classes), size=size, build=arguments,
                settings=conversion or ConversionSettings(seed=training.seed), code=code, command=command,
                progress=progress.step,
            )  # fmt: skip
            how = _preprocessing(dataset, start, training)
            _rehearse(start, dataset, how, training, accelerator)
            run = _run_record(model, dataset, options, training, how, accelerator.num_processes, command)
            for note in (*start.notes, *_class_notes(start.record, dataset)):
                progress.note(note)
            stage = stack.enter_context(staged_folder(folder.path, overwrite=overwrite, marker=RUN))
            (stage / RUN).write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
            write_trained(RunFolder(stage).start, start, start.network, _training(run, start.record, epoch=0))
    accelerator.wait_for_everyone()
    original = original_of(model, code, read_record(folder.start))
    return _train(folder, dataset, original, accelerator, progress)


def resume(
    folder: str | Path,
    *,
    model: str | nn.Module | None = None,
    code: str | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Go on with a run that was cut off, with the settings it was started with; bit for bit as if it had not been.

    Args:
        folder: The run.
        model: For a network of somebody's own, that network or the source that builds it.
        code: The same, where the run began with a bundle of it.
        progress: Told how it goes.

    Returns:
        What the best network came to. A run that has come to its end gives its result.

    Raises:
        BundleError: The folder holds no run, or is damaged.
        DataError: The data set is not the one that the run was started with.
        UsageError: The number of processes is another one.
        TrainingError: As `finetune` says.
    """
    progress = progress or Progress()
    place = RunFolder(Path(folder))
    if is_bundle(place.path) and (place.path.parent / RUN).is_file():
        raise UsageError(
            f"cannot resume {place.path}: it is a bundle of a run", hint=f"Name the run: {place.path.parent}."
        )
    run = place.run()
    if (done := place.result()) is not None:
        progress.note(f"{place.path} has come to its end already")
        return done
    settings = TrainingSettings(run.recipe, run.seed, run.machine, onnx=run.onnx, track=run.track)
    accelerator = _accelerator(settings, place)
    if accelerator.num_processes != run.processes:
        raise UsageError(
            f"cannot resume {place.path} with {accelerator.num_processes} processes: it began with {run.processes}",
            hint=f"torchrun --nproc-per-node {run.processes} -m spdify finetune --resume {place.path}"
            if run.processes > 1
            else "Resume it without torchrun.",
        )
    progress.step("reading the data")
    options = DataOptions(
        folder=Path(run.data_folder), channels=run.channels, validation_share=run.validation_share,
        skip_corrupt=run.skip_corrupt, from_disk=run.from_disk,
    )  # fmt: skip
    dataset = open_data(run.data, options)
    if dataset.digest() != run.known.digest:
        raise DataError(
            f"cannot resume {place.path}: {run.data} is not what it was when the run was started",
            hint="Bring the images back, or start a new run.",
        )
    for name, now in versions().items():
        if run.versions.get(name) != now:
            progress.note(
                f"{name} was {run.versions.get(name)} and is now {now}: results may differ in the last digits"
            )
    accelerator.wait_for_everyone()
    original = original_of(model, code, read_record(place.start))
    return _train(place, dataset, original, accelerator, progress)


def _accelerator(settings: TrainingSettings, folder: RunFolder) -> Accelerator:
    return make_accelerator(
        settings.machine, log_with=list(settings.track) or None, project_dir=str(folder.path / "logs")
    )


def _rehearse(
    start: Start, dataset: DataSet, how: Preprocessing, training: TrainingSettings, accelerator: Accelerator
) -> None:
    """Make what the training will be made of, so that what cannot be made is told before anything is written."""
    share = Share(0, accelerator.num_processes, training.machine.parts)
    make_batches(dataset.train, training.recipe, how, classes=len(dataset.classes), share=share)
    pack(make_optimizer(start.network, training.recipe, ()).state_dict())


def _channels(model: str | Path | nn.Module, build: BuildArguments) -> int:
    """Give the number of channels of the images, as the model takes them."""
    if size := build.get("input_size"):
        return size[0]
    if not isinstance(model, nn.Module) and is_bundle(model):
        inputs = read_record(Path(model)).example_inputs
        if inputs is not None and inputs.args:
            return inputs.args[0].shape[1]
    return build.get("in_chans") or 3


def _with_channels(options: DataOptions, channels: int) -> DataOptions:
    return DataOptions(**{**vars(options), "channels": channels})


def _few(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:3]))
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")  # noqa: PLR2004 - what is shown


def _preprocessing(dataset: DataSet, start: Start, training: TrainingSettings) -> Preprocessing:
    """Say how images become inputs: normalised by the data's own mean and deviation unless told otherwise."""
    size = start.inputs.args[0].shape[1:]
    known = start.record.preprocessing
    mean, std = training.mean, training.std
    if mean is None or std is None:
        own = mean_and_deviation(dataset.train)
        mean, std = mean or own[0], std or own[1]
    check_normalisation(mean, std, size[0])
    if dataset.size is not None:
        return Preprocessing(input_size=size, mean=mean, std=std)
    return Preprocessing(
        input_size=size, mean=mean, std=std,
        interpolation=known.interpolation if known else "bilinear",
        crop_pct=known.crop_pct if known else DEFAULT_CROP,
    )  # fmt: skip


def _class_notes(record: BundleRecord, dataset: DataSet) -> list[str]:
    """Say when a network was trained on other classes of the same number."""
    if not record.classes or len(record.classes) != len(dataset.classes) or record.classes == dataset.classes:
        return []
    pairs = zip(record.classes, dataset.classes, strict=True)
    old, new = next((a, b) for a, b in pairs if a != b)
    return [f"classes are called otherwise than in the last training ({old}, now {new}): the classifier is kept"]


def _run_record(  # noqa: PLR0913 - all that a run is started with
    model: str | Path | nn.Module, dataset: DataSet, options: DataOptions, training: TrainingSettings,
    how: Preprocessing, processes: int, command: str,
) -> TrainingRun:  # fmt: skip
    kind, colon, path = dataset.spec.partition(":")
    return TrainingRun(
        model=type(model).__name__ if isinstance(model, nn.Module) else str(model),
        data=f"{kind}:{Path(path).expanduser().resolve()}" if colon else dataset.spec,
        data_folder=str(options.folder.expanduser().resolve()),
        channels=options.channels,
        validation_share=options.validation_share,
        skip_corrupt=options.skip_corrupt,
        from_disk=options.from_disk,
        known=DataRecord(
            name=dataset.name,
            classes=dataset.classes,
            images={name: len(images) for name, images in dataset.splits.items()},
            digest=dataset.digest(),
            skipped=len(dataset.skipped),
        ),
        preprocessing=how,
        recipe=training.recipe,
        seed=training.seed,
        machine=training.machine,
        processes=processes,
        onnx=training.onnx,
        track=training.track,
        versions=versions(),
        command=command,
    )


def _training(run: TrainingRun, record: BundleRecord, *, epoch: int) -> Training:
    return Training(
        data=run.known, preprocessing=run.preprocessing, recipe=run.recipe, seed=run.seed, epoch=epoch,
        plans=len(record.plans), processes=run.processes, averaged=bool(run.recipe.ema_decay),
    )  # fmt: skip


def original_of(model: str | Path | nn.Module | None, code: str | None, record: BundleRecord) -> nn.Module | None:
    """Give the network that a bundle was made from where it is the caller's own code; else None."""
    if isinstance(model, nn.Module):
        return model
    if record.source.is_registry:
        return None
    named = code or (str(model) if model is not None and not is_bundle(model) else None)
    if named is None:
        raise UsageError(
            f"cannot build {record.source.spec}: it is code of your own, which a run does not hold",
            hint=f"Pass --code {record.source.spec} (in Python: model=factory()).",
        )
    return build_original(named, record)


def _train(
    folder: RunFolder, dataset: DataSet, original: nn.Module | None, accelerator: Accelerator, progress: Progress
) -> TrainingResult:
    """Train from where the folder says that the run is, to its end."""
    run = folder.run()
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(locked(folder.path))
            folder.clean()
        network = load(folder.start, model=original)
        start = read_start(folder.start, network)
        trainer = _make_trainer(run, start, folder, dataset, original, accelerator, progress)
        history: list[EpochResult] = []
        if (saved := folder.load_state()) is not None:
            state, history = saved
            try:
                trainer.load_state(state)
            except (RuntimeError, KeyError, ValueError) as error:
                raise BundleError(
                    f"cannot resume {folder.path}: its state is not of this network: {str(error).splitlines()[0]}",
                    hint="The folder is damaged: start the run anew in another one.",
                ) from error
            progress.note(f"resumed after epoch {trainer.epoch} of {run.recipe.epochs}")
        log = folder.log if accelerator.is_main_process else _silent
        log(f"{'resumed' if history else 'started'} after epoch {trainer.epoch}, {accelerator.num_processes} processes")
        if run.track:
            _init_trackers(accelerator, run)
        while trainer.epoch < run.recipe.epochs:
            history.append(_epoch(trainer, dataset, run))
            if accelerator.is_main_process:
                _save(folder, start, run, trainer, history)
            if run.track:
                accelerator.log(_figures(history[-1]), step=history[-1].epoch)
            log(" ".join(f"{name}={value:.6g}" for name, value in _figures(history[-1]).items()))
            progress.epoch(history[-1], run.recipe.epochs)
        accelerator.wait_for_everyone()
        result = _finish(folder, start, run, trainer, history, dataset, original, accelerator, progress)
        log(f"ended: epoch {result.best_epoch}, {result.split} top-1 {result.evaluation.top1:.6g}")
        for tracker in accelerator.trackers:
            tracker.finish()
    return result


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
    )  # fmt: skip
    return trainer


def _masks(record: BundleRecord, original: nn.Module | None, folder: Path) -> dict[str, Any]:
    """Find which weights are new since the network was last trained."""
    before = record.trainings[-1].plans if record.trainings else 0
    network = build_converted(record, original, folder, plans=before)
    return carried_masks(network.state_dict(), record.plans[before:])


def _epoch(trainer: Trainer, dataset: DataSet, run: TrainingRun) -> EpochResult:
    result = trainer.run_epoch()
    if dataset.validation is None:
        return result
    found = trainer.evaluate(dataset.validation, run.preprocessing).evaluation()
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
    training = _training(run, start.record, epoch=result.epoch).model_copy(update={"validation": result.validation})
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
    training = _training(run, start.record, epoch=chosen.epoch).model_copy(update=found)
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
    exported = read_record(folder.best).onnx
    if exported is not None and exported.file == UNVERIFIED:
        bad = "; ".join(f"{c.name}: {c.detail or c.value}" for c in exported.checks if c.outcome == "failed")
        return CheckFailedError(
            f"the ONNX file of the trained network does not pass: {bad}",
            hint=f"The run is complete; {folder.best / exported.file} must not be used.",
        )
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
