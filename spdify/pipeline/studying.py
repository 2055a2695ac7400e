"""A converted network and the one it was made from, trained side by side: over seeds and image sizes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from spdify.benchmarking import seconds_per_image
from spdify.bundle import check_output, is_bundle, read_json, read_record, staged_folder, write_text
from spdify.bundle.locking import locked
from spdify.datasets import DataOptions, open_data
from spdify.errors import BundleError, UsageError
from spdify.pipeline.conversion import versions
from spdify.pipeline.converting import ConversionSettings
from spdify.pipeline.finetuning import finetune, resume
from spdify.pipeline.handing_over import refuse_other_training
from spdify.pipeline.loading import load
from spdify.pipeline.opening import open_model
from spdify.pipeline.progress import Progress
from spdify.pipeline.run_folder import RUN, RunFolder
from spdify.pipeline.run_settings import TrainingSettings, original_of
from spdify.pipeline.starting import NO_RULES
from spdify.records import Machine, ParamValue, Recipe, Record, StudyRun
from spdify.reporting.studies import StudyPage, study_files
from spdify.rulebook import load_rules
from spdify.training import paired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from spdify.datasets import DataSet
    from spdify.sources import BuildArguments

STUDY, RUNS = "study.json", "runs"
STUDY_HINT = "A study is a folder that `spdify finetune --compare-baseline` (or --seeds, --resolution) wrote."
ARMS: tuple[Literal["converted", "original"], ...] = ("converted", "original")
TIMED_BATCH = 64


class Study(Record):
    """What a study is: content of `study.json`.

    Attributes:
        model: Source of the network.
        rules: Rulebooks that it is converted by, with `overrides` of their parameters.
        init: Weights of what is put in: `exact` or `random`.
        width_factor: As `spdify.convert` takes it, for the converted network only.
        depth_factor: Likewise.
        proof: Level of the proofs.
        pretrained: Whether both begin with the registry's weights.
        checkpoint: File with the weights that both begin with.
        num_classes: Outputs of the network as it is built.
        model_kwargs: Arguments of its constructor.
        channels: Of the images.
        reparameterize: Whether training-time branches are folded first.
        data: Name of the data set, with `data_folder`, `validation_share`, `skip_corrupt` and `from_disk`.
        recipe: How every network is trained.
        machine: On what.
        compare: Whether the network as it was is trained, too.
        seeds: Each trains every network once, with the same data order and augmentation.
        sizes: Heights, equal to widths, of the inputs; empty for the data's own.
        mean: Per channel; none for the training images' own.
        std: Likewise.
        command: Command line, if there was one.
    """

    schema_version: Literal[1] = 1
    model: str
    rules: tuple[str, ...] = ("spd",)
    overrides: tuple[str, ...] = ()
    init: str = "exact"
    width_factor: float = 1.0
    depth_factor: float = 1.0
    proof: str = "auto"
    pretrained: bool = False
    checkpoint: str | None = None
    num_classes: int | None = None
    model_kwargs: dict[str, ParamValue | list[ParamValue] | None] = Field(default_factory=dict)
    channels: int = 3
    reparameterize: bool = False
    data: str = "cifar10"
    data_folder: str = "data"
    validation_share: float = 0.1
    skip_corrupt: bool = False
    from_disk: bool = False
    recipe: Recipe
    machine: Machine = Machine()
    compare: bool = True
    seeds: tuple[int, ...] = (0,)
    sizes: tuple[int, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    command: str = ""

    @property
    def arms(self) -> tuple[Literal["converted", "original"], ...]:
        """What is trained."""
        return ARMS if self.compare else ARMS[:1]


@dataclass(frozen=True)
class _Task:
    """One run of a study."""

    arm: Literal["converted", "original"]
    size: int | None
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.arm}-{self.size or 'native'}-seed{self.seed}"


def run_study(  # noqa: PLR0913 - a study, a place, and how
    study: Study,
    output: str | Path,
    *,
    code: str | None = None,
    download: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> StudyPage:
    """Train all networks of a study and write tables, pictures and a page about them.

    Args:
        study: What to train.
        output: Folder of the study; its runs lie in `runs`.
        code: For a bundle of somebody's own network, the source that builds the original.
        download: Fetch the data if need be.
        overwrite: Whether a study that is in `output` may be replaced.
        progress: Told how it goes.

    Returns:
        All that the page says.

    Raises:
        UsageError: There is nothing to compare a bundle with, or sizes are given twice.
        SpdifyError: As `finetune` says.
    """
    folder, progress = Path(output), progress or Progress()
    refuse_other_training(study.model)
    check_output(folder, overwrite=overwrite, marker=STUDY)
    _check(study)
    progress.step("reading the data")
    dataset = open_data(study.data, _data_options(study, download=download))
    # What cannot be opened is told before anything is written, or replaced.
    load_rules(study.rules)
    open_model(study.model, code=code, **_build(study, _Task("original", _sizes(study)[0], study.seeds[0]), dataset))
    with ExitStack() as stack:
        if is_study(folder):
            stack.enter_context(locked(folder))  # nobody else may be writing what is replaced
        stage = stack.enter_context(staged_folder(folder, overwrite=overwrite, marker=STUDY))
        (stage / STUDY).write_text(study.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return _go(study, folder, code, progress, dataset)


def resume_study(folder: str | Path, *, code: str | None = None, progress: Progress | None = None) -> StudyPage:
    """Go on with a study that was cut off; runs that have ended are not repeated.

    Raises:
        BundleError: The folder holds no study.
        SpdifyError: As `run_study` says.
    """
    study, progress = read_study(Path(folder)), progress or Progress()
    progress.step("reading the data")
    dataset = open_data(study.data, _data_options(study, download=False))
    return _go(study, Path(folder), code, progress, dataset)


def is_study(folder: str | Path) -> bool:
    """Whether a folder holds a study."""
    return (Path(folder) / STUDY).is_file()


def read_study(folder: Path) -> Study:
    """Read `study.json`.

    Raises:
        BundleError: It is missing, or not what it should be.
    """
    return read_json(folder / STUDY, Study, missing=STUDY_HINT, damaged=STUDY_HINT)


def _check(study: Study) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "cannot compare networks in several processes at once", hint="Leave out torchrun, or train them one by one."
        )
    if study.compare and is_bundle(study.model):
        raise UsageError(
            f"cannot compare {study.model} with the network it was made from: a bundle no longer has its weights",
            hint="Name the original model, with --checkpoint or --pretrained for its weights.",
        )
    if study.compare and NO_RULES in study.rules:
        raise UsageError("cannot compare a network with itself: --rules none converts nothing", hint="Leave it out.")
    for name, values in (("sizes", study.sizes), ("seeds", study.seeds)):
        if len(set(values)) < len(values):
            raise UsageError(f"cannot train with the same {name} twice: {', '.join(map(str, values))}")


def _tasks(study: Study) -> list[_Task]:
    """Order the runs so that what is compared is trained close together."""
    return [_Task(arm, size, seed) for seed in study.seeds for size in _sizes(study) for arm in study.arms]


def _data_options(study: Study, *, download: bool) -> DataOptions:
    return DataOptions(
        folder=Path(study.data_folder), download=download, channels=study.channels, from_disk=study.from_disk,
        validation_share=study.validation_share, skip_corrupt=study.skip_corrupt,
    )  # fmt: skip


def _sizes(study: Study) -> Sequence[int | None]:
    return study.sizes or (None,)


def _go(study: Study, folder: Path, code: str | None, progress: Progress, dataset: DataSet) -> StudyPage:
    # Code of one's own may lie elsewhere by now.
    model = code if code is not None and not is_bundle(study.model) else study.model
    with locked(folder):
        tasks = _tasks(study)
        for number, task in enumerate(tasks, start=1):
            place = RunFolder(folder / RUNS / task.folder)
            progress.note(f"run {number} of {len(tasks)}: {task.folder}")
            if (place.path / RUN).exists():
                if place.result() is None:
                    resume(place.path, model=model, code=code, data=dataset, progress=progress)
            else:
                _start(study, task, place.path, model, dataset, code, progress)
        runs = [_read(folder, task) for task in tasks]
        progress.step("comparing")
        return _write(study, folder, dataset, runs, code)


def _start(  # noqa: PLR0913 - what to train, on what, where
    study: Study, task: _Task, place: Path, model: str, dataset: DataSet, code: str | None, progress: Progress
) -> None:
    conversion = ConversionSettings(
        study.rules if task.arm == "converted" else NO_RULES, study.overrides, study.proof, study.init,
        study.width_factor, study.depth_factor, seed=task.seed,
    )  # fmt: skip
    # The original learns no sizes that could cost something.
    recipe = study.recipe if task.arm == "converted" else study.recipe.model_copy(update={"size_penalty": 0.0})
    training = TrainingSettings(recipe, task.seed, study.machine, mean=study.mean, std=study.std, onnx=False)
    finetune(
        model, place, data=dataset, data_options=_data_options(study, download=False), conversion=conversion,
        training=training, build=_build(study, task, dataset), code=code if is_bundle(model) else None,
        command=study.command, progress=progress,
    )  # fmt: skip


def _build(study: Study, task: _Task, dataset: DataSet) -> BuildArguments:
    """Say how the network of a run is built."""
    if is_bundle(study.model):
        return {}
    build: BuildArguments = {
        "pretrained": study.pretrained, "checkpoint": study.checkpoint, "num_classes": study.num_classes,
        "model_kwargs": study.model_kwargs, "reparameterize": study.reparameterize, "seed": task.seed,
    }  # fmt: skip
    if task.size is not None:
        build["input_size"] = (study.channels, task.size, task.size)
    elif dataset.size is not None:
        build["input_size"] = (study.channels, *dataset.size)
    return build


def _read(folder: Path, task: _Task) -> StudyRun:
    place = RunFolder(folder / RUNS / task.folder)
    result, history = place.result(), place.history()
    if result is None or not history:
        raise BundleError(f"cannot read {place.path}: it has not come to its end", hint="Go on with it by --resume.")
    size = place.run().preprocessing.input_size[1]
    return StudyRun(
        folder=f"{RUNS}/{task.folder}", arm=task.arm, size=size, seed=task.seed, result=result, history=tuple(history)
    )


def _write(study: Study, folder: Path, dataset: DataSet, runs: Sequence[StudyRun], code: str | None) -> StudyPage:
    """Compare, and write what came out."""
    sizes = sorted({run.size for run in runs})
    differences = {}
    if study.compare:
        for size in sizes:
            right = {
                arm: [
                    RunFolder(folder / run.folder).scores().correct
                    for run in runs
                    if (run.arm, run.size) == (arm, size)
                ]
                for arm in ARMS
            }
            differences[size] = paired_difference(right["converted"], right["original"])
    page = StudyPage(
        model=study.model, data=dataset.name, rules=study.rules, recipe=study.recipe, seeds=study.seeds,
        images={name: len(images) for name, images in dataset.splits.items()}, command=study.command,
        versions=versions(), runs=tuple(runs),
        differences={size: (d.mean, d.half_width, d.basis) for size, d in differences.items()},
        seconds=_times(study, folder, runs, sizes[-1], code),
    )  # fmt: skip
    for name, text in study_files(page).items():
        write_text(folder / name, text, overwrite=True)
    return page


def _times(study: Study, folder: Path, runs: Sequence[StudyRun], size: int, code: str | None) -> dict[str, float]:
    """Time the networks of the first seed side by side, at the largest size, on the CPU."""
    chosen = {
        run.arm: RunFolder(folder / run.folder).best for run in runs if (run.size, run.seed) == (size, study.seeds[0])
    }
    networks: dict[str, nn.Module] = {
        arm: load(best, model=original_of(study.model, code, read_record(best))) for arm, best in chosen.items()
    }
    return seconds_per_image(networks, torch.zeros(TIMED_BATCH, study.channels, size, size))
