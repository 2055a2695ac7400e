"""Fine-tuning: from a model and a data set to a run folder, and on from there."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.bundle import check_output, is_bundle, read_record, staged_folder
from spdify.bundle.locking import locked
from spdify.datasets import DataOptions, DataSet, Files, check_normalisation, open_data
from spdify.errors import DataError, UsageError
from spdify.pipeline.conversion import versions
from spdify.pipeline.converting import ConversionSettings
from spdify.pipeline.handing_over import refuse_other_training
from spdify.pipeline.progress import Progress
from spdify.pipeline.run_folder import RUN, RunFolder
from spdify.pipeline.run_settings import (
    TrainingSettings,
    class_notes,
    data_place,
    original_of,
    preprocessing_for,
    require_text,
    run_record,
    training_of,
    whole_name,
)
from spdify.pipeline.running import train_run
from spdify.pipeline.starting import Start, make_start, write_trained
from spdify.records import TrainingRun
from spdify.training import Share, make_accelerator, make_batches, pack, size_cost_of
from spdify.training.optimizing import make_optimizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator

    from spdify.records import Preprocessing, TrainingResult
    from spdify.sources import BuildArguments


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
    writes. The random generators of PyTorch, NumPy and Python are seeded on the way.

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
    refuse_other_training(model)
    training, progress = training or TrainingSettings(), progress or Progress()
    arguments: BuildArguments = {**(build or {}), "seed": training.seed}
    folder = RunFolder(Path(output))
    accelerator = _accelerator(training, folder)
    if accelerator.is_main_process:
        check_output(folder.path, overwrite=overwrite, marker=RUN, kind=TrainingRun)
    progress.step("reading the data")
    channels = _channels(model, arguments)
    options = replace(data_options or DataOptions(), channels=channels)
    require_text(str(output), whole_name(data.spec) if isinstance(data, DataSet) else data_place(data, options.folder))
    dataset = data if isinstance(data, DataSet) else open_data(data, options)
    if dataset.skipped:
        progress.note(f"{len(dataset.skipped)} images cannot be read and are left out: {_few(dataset.skipped)}")
    if isinstance(dataset.train, Files) and not options.from_disk:
        progress.note(
            "images differ in size, or fill more memory than is kept for them: they are read from the disk each time, "
            "with timm's transforms; --workers N reads them in N processes"
        )
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
            how = preprocessing_for(dataset, start, training)
            _rehearse(start, dataset, how, training, accelerator)
            run = run_record(model, dataset, options, training, how, accelerator.num_processes, command)
            for note in (*start.notes, *class_notes(start.record, dataset)):
                progress.note(note)
            stage = stack.enter_context(staged_folder(folder.path, overwrite=overwrite, marker=RUN, kind=TrainingRun))
            (stage / RUN).write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
            write_trained(RunFolder(stage).start, start, start.network, training_of(run, start.record, epoch=0))
    accelerator.wait_for_everyone()
    original = original_of(model, code, read_record(folder.start))
    return train_run(folder, dataset, original, accelerator, progress)


def resume(  # noqa: PLR0913 - a run, what it needs, and who is told
    folder: str | Path,
    *,
    model: str | nn.Module | None = None,
    code: str | None = None,
    data: DataSet | None = None,
    track: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> TrainingResult:
    """Go on with a run that was cut off, with the settings it was started with; bit for bit as if it had not been.

    Args:
        folder: The run.
        model: For a network of somebody's own, that network or the source that builds it.
        code: The same, where the run began with a bundle of it.
        data: The data set, where it is open already.
        track: Trackers that are told from now on. Those that the run had are not, unless they are named again: they
            send data away, and the folder may be somebody else's.
        progress: Told how it goes.

    Returns:
        What the best network came to. A run that has come to its end gives its result.

    Raises:
        BundleError: The folder holds no run, or is damaged.
        DataError: The data set is not the one that the run was started with.
        UsageError: The number of processes is another one, or a tracker cannot be told.
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
    settings = TrainingSettings(run.recipe, run.seed, run.machine, onnx=run.onnx, track=track)
    for tracker in run.track:
        if tracker not in track:
            progress.note(f"{tracker} was told of this run, and is not any more: --track {tracker} tells it again")
    accelerator = _accelerator(settings, place)
    if accelerator.num_processes != run.processes:
        raise UsageError(
            f"cannot resume {place.path} with {accelerator.num_processes} processes: it began with {run.processes}",
            hint=f"torchrun --nproc-per-node {run.processes} -m spdify finetune --resume {place.path}"
            if run.processes > 1
            else "Resume it without torchrun.",
        )
    check_normalisation(run.preprocessing.mean, run.preprocessing.std, run.channels)
    progress.step("reading the data")
    options = DataOptions(
        folder=Path(run.data_folder), channels=run.channels, validation_share=run.validation_share,
        skip_corrupt=run.skip_corrupt, from_disk=run.from_disk,
    )  # fmt: skip
    dataset = data or open_data(run.data, options)
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
    return train_run(place, dataset, original, accelerator, progress)


def _accelerator(settings: TrainingSettings, folder: RunFolder) -> Accelerator:
    return make_accelerator(
        settings.machine, log_with=list(settings.track) or None, project_dir=str(folder.path / "logs")
    )


def _rehearse(
    start: Start, dataset: DataSet, how: Preprocessing, training: TrainingSettings, accelerator: Accelerator
) -> None:
    """Make what the training will be made of, so that what cannot be made is told before anything is written."""
    share = Share(0, accelerator.num_processes, training.machine.parts)
    few = torch.arange(min(len(dataset.train), training.recipe.batch_size))  # enough to tell, quick to resize
    make_batches(dataset.train.subset(few), training.recipe, how, classes=len(dataset.classes), share=share)
    size_cost_of(start.network, training.recipe, how)
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


def _few(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:3]))
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")  # noqa: PLR2004 - what is shown
