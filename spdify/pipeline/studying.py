"""Converted networks and the one that they were made from, trained side by side: over seeds and image sizes."""

from __future__ import annotations

import os
import platform
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from spdify.benchmarking import seconds_per_image
from spdify.budgeting import BudgetSettings
from spdify.bundle import check_output, is_bundle, read_json, read_record, staged_folder, write_text
from spdify.bundle.locking import locked
from spdify.datasets import DataOptions, open_data
from spdify.errors import BundleError, NothingToConvertError, TrainingError, UsageError
from spdify.graph import survey
from spdify.pipeline.clusters import ClusterSettings, Task, connected, require_reachable
from spdify.pipeline.conversion import versions
from spdify.pipeline.converting import ConversionSettings
from spdify.pipeline.evaluating import Normalisation, evaluate
from spdify.pipeline.finetuning import finetune, resume
from spdify.pipeline.handing_over import refuse_other_training
from spdify.pipeline.loading import load
from spdify.pipeline.opening import open_model
from spdify.pipeline.planning import plan_opened
from spdify.pipeline.progress import Progress
from spdify.pipeline.run_folder import RUN, RunFolder
from spdify.pipeline.run_settings import TrainingSettings, data_place, original_of, require_text
from spdify.pipeline.starting import NO_RULES
from spdify.records import Kind, Machine, MeasuredModel, ParamValue, Recipe, Record, StudyRun, Words
from spdify.reporting.studies import StudyPage, study_files
from spdify.rewrites import REGISTRY, Rewrite
from spdify.rulebook import load_rules, split_name
from spdify.sources import parse_spec
from spdify.training import paired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from spdify.datasets import DataSet
    from spdify.pipeline.opening import Opened
    from spdify.sources import BuildArguments

STUDY, RUNS = "study.json", "runs"
STUDY_HINT = "A study is a folder that `spdify study`, or `finetune --compare-baseline` (--seeds, --resolution), wrote."
CONVERTED, ORIGINAL = "converted", "original"
TIMED_BATCH = 64
LOCK_SECONDS = 180.0  # what storage may take to let go of a lock whose node is lost


class Study(Record):
    """What a study is: content of `study.json`.

    Attributes:
        model: Source of the network.
        rules: Rulebooks that it is converted by, with `overrides` of their parameters.
        contenders: Rulebooks that it is converted by in turn, instead of `rules`: one network for each entry, which
            may join several. Each takes those `overrides` that name one of its books.
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
    contenders: tuple[tuple[str, ...], ...] = ()
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
    data_folder: Words = "data"
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
    command: Words = ""

    @property
    def books(self) -> dict[str, tuple[str, ...]]:
        """Rulebooks of each network that is trained, by its name; of the original, none."""
        found = {_joined(books): books for books in self.contenders} or {CONVERTED: self.rules}
        return found | ({ORIGINAL: ()} if self.compare else {})

    @property
    def arms(self) -> tuple[str, ...]:
        """What is trained."""
        return tuple(self.books)

    def overrides_of(self, arm: str) -> tuple[str, ...]:
        """Give the overrides that are for one network."""
        if not self.contenders:
            return self.overrides
        names = set(map(_stem, self.books[arm]))
        return tuple(item for item in self.overrides if book_of(item) in names)


def _joined(books: Sequence[str]) -> str:
    return "+".join(map(_stem, books))


def _stem(book: str) -> str:
    return Path(book).stem


def book_of(override: str) -> str:
    """Give the rulebook that an override names; empty where it names none."""
    return split_name(override.partition("=")[0].strip())[0]


@dataclass(frozen=True)
class _Task:
    """One run of a study."""

    arm: str
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
    cluster: ClusterSettings | None = None,
) -> StudyPage:
    """Train all networks of a study and write tables, pictures and a page about them.

    Args:
        study: What to train.
        output: Folder of the study; its runs lie in `runs`.
        code: For a bundle of somebody's own network, the source that builds the original.
        download: Fetch the data if need be.
        overwrite: Whether a study that is in `output` may be replaced.
        progress: Told how it goes.
        cluster: Where the networks are trained side by side; None for one after another in this process. All nodes
            must see `output`, the data and the network under the same paths.

    Returns:
        All that the page says.

    Raises:
        UsageError: There is nothing to compare a bundle with, or sizes are given twice.
        SpdifyError: As `finetune` says.
    """
    folder, progress = Path(output), progress or Progress()
    refuse_other_training(study.model)
    check_output(folder, overwrite=overwrite, marker=STUDY, kind=Study)
    books = (*study.rules, *(book for books in study.contenders for book in books))
    place = data_place(study.data, Path(study.data_folder))
    require_text(str(output), study.model, *books, study.checkpoint or "", place)
    _check(study, cluster)
    progress.step("reading the data")
    dataset = open_data(study.data, _data_options(study, download=download))
    # What cannot be opened is told before anything is written, or replaced.
    for books in study.books.values():
        load_rules(books or study.rules)
    build = _build(study, _Task(ORIGINAL, _sizes(study)[0], study.seeds[0]), dataset)
    opened = open_model(study.model, code=code, **build)
    if study.contenders:
        progress.step("trying the rulebooks")
        _require_work(study, opened)
    with ExitStack() as stack:
        if is_study(folder):
            stack.enter_context(locked(folder))  # nobody else may be writing what is replaced
        stage = stack.enter_context(staged_folder(folder, overwrite=overwrite, marker=STUDY, kind=Study))
        (stage / STUDY).write_text(study.model_dump_json(indent=2) + "\n", encoding="utf-8")
    named = code if is_bundle(study.model) else study.model
    return _go(study, folder, named, progress, dataset, cluster)


def resume_study(
    folder: str | Path,
    *,
    code: str | None = None,
    pretrained: bool = False,
    progress: Progress | None = None,
    cluster: ClusterSettings | None = None,
) -> StudyPage:
    """Go on with a study that was cut off; runs that have ended are not repeated.

    The folder may be somebody else's: code that it names is not run, and nothing is fetched, unless the caller says so.

    Args:
        folder: Of the study.
        code: The network, where it is code of one's own, or where one of the Hugging Face Hub must be fetched again.
        pretrained: Whether the registry's weights may be fetched for runs that have not begun.
        progress: Told how it goes.
        cluster: As `run_study` takes it.

    Raises:
        BundleError: The folder holds no study.
        UsageError: Code would be run, or something fetched, that the caller has not named.
        SpdifyError: As `run_study` says.
    """
    study, progress = read_study(Path(folder)), progress or Progress()
    _check(study, cluster)
    _require_named(study, Path(folder), code, pretrained=pretrained)
    progress.step("reading the data")
    dataset = open_data(study.data, _data_options(study, download=False))
    return _go(study, Path(folder), code, progress, dataset, cluster)


def _require_named(study: Study, folder: Path, code: str | None, *, pretrained: bool) -> None:
    """Refuse to run code, or to fetch anything, on the word of a file alone."""
    if is_bundle(study.model):  # which holds all but code, and that is asked for where it is loaded
        return
    kind, begun = parse_spec(study.model).kind, all((_place(folder, task) / RUN).exists() for task in _tasks(study))
    if code is None and (kind == "code" or (kind == "hf-hub" and not begun)):
        what = "is code, which would be run" if kind == "code" else "would be fetched for runs that have not begun"
        raise UsageError(
            f"cannot go on with {folder}: its network {study.model} {what}",
            hint=f"If you trust it, name it again: --code {study.model} (in Python: code=...).",
        )
    if study.pretrained and not pretrained and not begun:
        raise UsageError(
            f"cannot go on with {folder}: weights of {study.model} would be fetched for runs that have not begun",
            hint="If that is meant, say so again: --pretrained (in Python: pretrained=True).",
        )


def is_study(folder: str | Path) -> bool:
    """Whether a folder holds a study."""
    return (Path(folder) / STUDY).is_file()


def read_study(folder: Path) -> Study:
    """Read `study.json`.

    Raises:
        BundleError: It is missing, or not what it should be.
    """
    return read_json(folder / STUDY, Study, missing=STUDY_HINT, damaged=STUDY_HINT)


def _check(study: Study, cluster: ClusterSettings | None) -> None:
    if cluster is not None:
        require_reachable(cluster)
    if cluster is not None and study.machine.device.startswith("cuda") and not cluster.gpus:
        raise UsageError(
            "cannot train on GPUs: the tasks are to have none", hint="Say how many each is to have: --task-gpus 1."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "cannot compare networks in several processes at once", hint="Leave out torchrun, or train them one by one."
        )
    if study.compare and is_bundle(study.model):
        raise UsageError(
            f"cannot compare {study.model} with the network it was made from: a bundle no longer has its weights",
            hint="Name the original model, with --checkpoint or --pretrained for its weights.",
        )
    if study.compare and any(NO_RULES in books for books in study.books.values()):
        raise UsageError("cannot compare a network with itself: --rules none converts nothing", hint="Leave it out.")
    names = [_joined(books) for books in study.contenders]
    for name, values in (("sizes", study.sizes), ("seeds", study.seeds), ("rulebooks", names)):
        if len(set(values)) < len(values):
            raise UsageError(f"cannot train with the same {name} twice: {', '.join(map(str, values))}")
    known = {_stem(book) for books in study.contenders for book in books}
    for item in study.overrides if study.contenders else ():
        if book_of(item) not in known:
            raise UsageError(
                f"cannot set {item!r} in a study: expected book/rule.param=value with one of {', '.join(sorted(known))}"
            )


def _require_work(study: Study, opened: Opened) -> None:
    """Refuse a rulebook that has nothing to do, before the others are trained for hours."""
    contenders = {arm: books for arm, books in study.books.items() if books}
    kinds = frozenset[Kind]().union(*(load_rules(books).kinds for books in contenders.values()))
    seen = survey(opened.model, opened.inputs, kinds)
    for arm, books in contenders.items():
        plan = plan_opened(opened, seen, books, study.overrides_of(arm), BudgetSettings())
        used = {split_name(d.rule or "")[0] or plan.rulebook for d in plan.applied}
        if idle := [name for name in map(_stem, books) if name not in used]:
            raise NothingToConvertError(
                f"nothing to convert in {opened.source.name} with {idle[0]} of {arm}: it has no part in a comparison",
                hint="Leave this rulebook out.",
            )


def _tasks(study: Study) -> list[_Task]:
    """Order the runs so that what is compared is trained close together."""
    return [_Task(arm, size, seed) for seed in study.seeds for size in _sizes(study) for arm in study.arms]


def _place(folder: Path, task: _Task) -> Path:
    return folder / RUNS / task.folder


def _data_options(study: Study, *, download: bool) -> DataOptions:
    return DataOptions(
        folder=Path(study.data_folder), download=download, channels=study.channels, from_disk=study.from_disk,
        validation_share=study.validation_share, skip_corrupt=study.skip_corrupt,
    )  # fmt: skip


def _sizes(study: Study) -> Sequence[int | None]:
    return study.sizes or (None,)


def _go(  # noqa: PLR0913 - a study, a place, and how
    study: Study, folder: Path, code: str | None, progress: Progress, dataset: DataSet, cluster: ClusterSettings | None
) -> StudyPage:
    # What is run is `code` alone, which the caller has named; code of one's own may lie elsewhere by now, too.
    model = code if code is not None and not is_bundle(study.model) else study.model
    with locked(folder):
        tasks = _tasks(study)
        if cluster is None:
            for number, task in enumerate(tasks, start=1):
                progress.note(f"run {number} of {len(tasks)}: {task.folder}")
                _train(study, folder, task, model, dataset, code, progress)
        else:
            _train_on(cluster, study, folder, tasks, model, code, progress)
        runs = [_read(folder, task, dataset) for task in tasks]
        progress.step("comparing")
        return _write(study, folder, dataset, runs, code)


def _train(  # noqa: PLR0913 - what to train, on what, where
    study: Study, folder: Path, task: _Task, model: str, dataset: DataSet, code: str | None, progress: Progress
) -> None:  # fmt: skip
    """Start one run, or go on with it; one that has ended is left as it is."""
    place = RunFolder(_place(folder, task))
    if not (place.path / RUN).exists():
        _start(study, task, place.path, model, dataset, code, progress)
    elif place.result() is None:
        resume(place.path, code=code, data=dataset, progress=progress)


def _train_on(  # noqa: PLR0913 - what to train, where
    cluster: ClusterSettings, study: Study, folder: Path, tasks: Sequence[_Task], model: str, code: str | None,
    progress: Progress,
) -> None:  # fmt: skip
    """Train the runs that have not ended on the nodes of a cluster.

    Raises:
        TrainingError: A run was lost more often than it may be.
    """
    left = [task for task in tasks if RunFolder(_place(folder, task)).result() is None]
    model, code = _whole(model), code and _whole(code)
    calls = [
        Task(task.folder, partial(_train_there, study, folder.resolve(), task, model, code, cluster.cpus))
        for task in left
    ]
    with connected(cluster, progress.note) as ray:
        progress.note(f"{len(left)} of {len(tasks)} runs to do, on {ray.nodes} nodes")
        with closing(ray.run(calls)) as ends:
            for number, end in enumerate(ends, start=1):
                if end.lost:
                    raise TrainingError(f"cannot go on with {end.name}: it was {end.lost}")
                progress.note(f"run {number} of {len(left)} has ended: {end.name}")


def _train_there(  # noqa: PLR0913 - what to train, where
    study: Study, folder: Path, task: _Task, model: str, code: str | None, cpus: float
) -> None:
    """Train one run on a node: it lies in the folder that all nodes share, where a lost one is gone on with.

    Raises:
        UsageError: This node does not see the folder.
    """
    if not is_study(folder) or read_study(folder) != study:
        raise UsageError(
            f"cannot train on node {platform.node()}: it does not see the study in {folder}",
            hint="Put the study on storage that all nodes share, under one path.",
        )
    torch.set_num_threads(max(1, int(cpus)))
    study = study.model_copy(update={"model": model})
    place = folder / RUNS / task.folder
    if (place / RUN).exists():
        with locked(place, patience=LOCK_SECONDS):  # until what was lost has let go of it
            pass
    dataset = open_data(study.data, _data_options(study, download=False))
    _train(study, folder, task, model, dataset, code, Progress())


def _whole(source: str) -> str:
    """Give a network with its whole path: nodes work in folders of their own."""
    if is_bundle(source):
        return str(Path(source).resolve())
    spec = parse_spec(source)
    if (spec.is_file or spec.kind == "local-dir") and Path(spec.target).exists():
        return replace(spec, target=str(Path(spec.target).resolve())).canonical
    return source


def _start(  # noqa: PLR0913 - what to train, on what, where
    study: Study, task: _Task, place: Path, model: str, dataset: DataSet, code: str | None, progress: Progress
) -> None:
    conversion = ConversionSettings(
        study.books[task.arm] or NO_RULES, study.overrides_of(task.arm), study.proof, study.init,
        study.width_factor, study.depth_factor, seed=task.seed,
    )  # fmt: skip
    # Networks that learn no sizes have nothing that could cost something.
    learns = task.arm == CONVERTED or _learns_sizes(study.books[task.arm])
    recipe = study.recipe if learns else study.recipe.model_copy(update={"size_penalty": 0.0})
    training = TrainingSettings(recipe, task.seed, study.machine, mean=study.mean, std=study.std, onnx=False)
    finetune(
        model, place, data=dataset, data_options=_data_options(study, download=False), conversion=conversion,
        training=training, build=_build(study, task, dataset), code=code if is_bundle(model) else None,
        command=study.command, progress=progress,
    )  # fmt: skip


def _learns_sizes(books: Sequence[str]) -> bool:
    """Whether rulebooks put blocks in that learn the sizes of maps."""
    rules = load_rules(books).rules if books else ()
    return any(REGISTRY[rule.rewrite].level is not Rewrite.level for rule in rules if not rule.keeps)


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


def _read(folder: Path, task: _Task, dataset: DataSet) -> StudyRun:
    place = RunFolder(_place(folder, task))
    result, history = place.result(), place.history()
    if result is None or not history:
        raise BundleError(f"cannot read {place.path}: it has not come to its end", hint="Go on with it by --resume.")
    if result.split not in dataset.splits:
        raise BundleError(f"cannot read {place.path}: it was measured on {result.split} images, and there are none")
    size = place.run().preprocessing.input_size[1]
    return StudyRun(
        folder=f"{RUNS}/{task.folder}", arm=task.arm, size=size, seed=task.seed, result=result, history=tuple(history)
    )


def _correct(folder: Path, run: StudyRun, dataset: DataSet) -> Tensor:
    """Give whether each image of a split was put into its class."""
    found, images = RunFolder(folder / run.folder).scores().correct, len(dataset.splits[run.result.split])
    if found.shape != (images,):
        raise BundleError(
            f"cannot read the scores of {folder / run.folder}: expected {images} images, got {tuple(found.shape)}",
            hint="The file is damaged: start the run anew.",
        )
    return found


def _write(study: Study, folder: Path, dataset: DataSet, runs: Sequence[StudyRun], code: str | None) -> StudyPage:
    """Compare, and write what came out."""
    sizes = sorted({run.size for run in runs})
    differences = {}
    for size in sizes if study.compare else ():
        right = {
            arm: [_correct(folder, run, dataset) for run in runs if (run.arm, run.size) == (arm, size)]
            for arm in study.arms
        }
        for arm in study.arms:
            if arm != ORIGINAL:
                differences[arm, size] = paired_difference(right[arm], right[ORIGINAL])
    page = StudyPage(
        model=study.model, data=dataset.name, books=study.books, recipe=study.recipe, seeds=study.seeds,
        images={name: len(images) for name, images in dataset.splits.items()}, command=study.command,
        versions=versions(), runs=tuple(runs),
        differences={key: (d.mean, d.half_width, d.basis) for key, d in differences.items()},
        seconds=_times(study, folder, runs, sizes[-1], code),
        starts=_starts(study, folder, runs, dataset, code) if study.contenders else {},
    )  # fmt: skip
    for name, text in study_files(page).items():
        write_text(folder / name, text, overwrite=True)
    return page


def _starts(
    study: Study, folder: Path, runs: Sequence[StudyRun], dataset: DataSet, code: str | None
) -> dict[tuple[str, int], float]:
    """Measure each network as it was before it was trained: what a conversion alone has left of the accuracy.

    With the first seed: the others begin with the same weights where these were given, and with no accuracy otherwise.
    """
    found = {}
    # Where they were trained on nodes of a cluster, this machine may have no GPU.
    machine = study.machine.model_copy(update={"device": "auto"}) if study.machine.device == "cuda" else study.machine
    for run in runs:
        if run.seed == study.seeds[0]:
            place = RunFolder(folder / run.folder)
            how, own = place.run().preprocessing, not read_record(place.start).source.is_registry
            measured = evaluate(
                place.start, data=dataset, split=run.result.split, machine=machine,
                normalisation=Normalisation(mean=how.mean, std=how.std),
                code=code if own else None,
            )  # fmt: skip
            if isinstance(measured, MeasuredModel):
                found[run.arm, run.size] = measured.evaluation.top1
    return found


def _times(study: Study, folder: Path, runs: Sequence[StudyRun], size: int, code: str | None) -> dict[str, float]:
    """Time the networks of the first seed side by side, at the largest size, on the CPU."""
    chosen = {
        run.arm: RunFolder(folder / run.folder).best for run in runs if (run.size, run.seed) == (size, study.seeds[0])
    }
    networks: dict[str, nn.Module] = {
        arm: load(best, model=original_of(None, code, read_record(best))) for arm, best in chosen.items()
    }
    return seconds_per_image(networks, torch.zeros(TIMED_BATCH, study.channels, size, size))
