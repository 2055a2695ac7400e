"""`spdify finetune`."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from spdify.cli import options as o
from spdify.cli.convert import default_output
from spdify.cli.terminal import output_console, print_json, training_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spdify.datasets import DataOptions
    from spdify.pipeline.clusters import ClusterSettings
    from spdify.pipeline.converting import ConversionSettings
    from spdify.pipeline.progress import Progress
    from spdify.pipeline.run_settings import TrainingSettings
    from spdify.records import TrainingResult
    from spdify.reporting.studies import StudyPage
    from spdify.sources import BuildArguments

SMALLEST = 4  # height of an image
CONVERTING = "Conversion"


def finetune(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=o.MODEL_HELP + " Left out with --resume.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the run (default: ./MODEL-RULES-DATA)."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run or study that was cut off, with its own settings."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    data: o.Data = "cifar10",
    data_dir: o.DataDir = Path("data"),
    download: o.Download = False,
    validation_share: o.ValidationShare = 0.1,
    skip_corrupt: o.SkipCorrupt = False,
    from_disk: o.FromDisk = False,
    mean: o.Mean = None,
    std: o.Std = None,
    rules: Annotated[
        list[str],
        typer.Option(
            "--rules",
            "-r",
            metavar="NAME|FILE",
            rich_help_panel=CONVERTING,
            help="Rulebook that a named model is converted by, as in `convert`; none trains it as it is.",
        ),
    ] = o.DEFAULT_RULES,
    overrides: o.Set = None,
    init: Annotated[
        str, typer.Option(metavar="exact|random", help="Weights of what is put in.", rich_help_panel=CONVERTING)
    ] = "exact",
    width_factor: Annotated[
        float, typer.Option(metavar="F", help="Channels, times this, before the rules.", rich_help_panel=CONVERTING)
    ] = 1.0,
    depth_factor: Annotated[
        float,
        typer.Option(metavar="F", help="Blocks per stage, times this, before the rules.", rich_help_panel=CONVERTING),
    ] = 1.0,
    proof: Annotated[
        str, typer.Option(metavar="auto|model|site", help="How far to prove.", rich_help_panel=CONVERTING)
    ] = "auto",
    recipe: o.Recipe = "finetune",
    epochs: o.Epochs = None,
    batch_size: o.BatchOfStep = None,
    lr: o.LearningRate = None,
    optimizer: o.Optimizer = None,
    weight_decay: o.WeightDecay = None,
    only_new_epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="First epochs in which only new weights change.", rich_help_panel=o.RECIPE),
    ] = None,
    size_penalty: o.SizePenalty = None,
    recipe_set: o.RecipeSet = None,
    device: o.Device = "auto",
    amp: o.Amp = "no",
    grad_accum_steps: o.Parts = 1,
    channels_last: o.ChannelsLast = False,
    torchcompile: o.Compile = False,
    deterministic: o.Deterministic = True,
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Batch norms over all processes (GPUs).", rich_help_panel=o.MACHINE)
    ] = False,
    workers: o.Workers = 0,
    compare_baseline: Annotated[
        bool,
        typer.Option(
            "--compare-baseline", help="Train the unconverted network alike, too.", rich_help_panel=o.COMPARING
        ),
    ] = False,
    seeds: o.Seeds = 1,
    resolution: o.Resolution = None,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Whether to export the best network.")] = True,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="tensorboard|wandb", help="Tell a tracker; repeat for both, and with --resume."),
    ] = None,
    pretrained: o.Pretrained = False,
    checkpoint: o.Checkpoint = None,
    num_classes: o.NumClasses = None,
    in_chans: o.InChans = None,
    model_kwargs: o.ModelKwargs = None,
    input_size: o.InputSize = None,
    seed: o.Seed = 0,
    reparameterize: o.Reparameterize = False,
    trust_checkpoint: o.TrustCheckpoint = False,
    code: o.Code = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """Convert a model and fine-tune it on images, or train a converted folder; alone or against the original.

    The folder holds `best` and `last` (bundles), `report.html`, `results.csv`, `curves.svg` and all that `--resume`
    needs. Several processes: `torchrun --nproc-per-node N -m spdify finetune …`.
    """
    from spdify.errors import UsageError

    if (model is None) == (resume is None):
        raise UsageError(
            "cannot tell what to train: expected either a model, or --resume RUN",
            hint="A run or study of your own code is resumed with --code path/file.py:FACTORY.",
        )
    if resume is not None:
        require_alone(context)
    with training_progress() as progress:
        progress.step("loading PyTorch")
        if resume is not None:
            outcome = resume_any(resume, code, progress, pretrained=pretrained, track=tuple(track or ()))
        else:
            from spdify.datasets import DataOptions
            from spdify.pipeline.converting import ConversionSettings
            from spdify.pipeline.run_settings import TrainingSettings
            from spdify.records import Machine
            from spdify.training import make_recipe

            changes = {
                "epochs": epochs, "batch_size": batch_size, "lr": lr, "optimizer": optimizer,
                "weight_decay": weight_decay, "only_new_epochs": only_new_epochs, "size_penalty": size_penalty,
            }  # fmt: skip
            build = o.build_arguments(
                pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
                model_kwargs=model_kwargs, input_size=input_size, seed=seed, reparameterize=reparameterize,
                trust_checkpoint=trust_checkpoint,
            )  # fmt: skip
            asked = Asked(
                model=model or "",
                output=output or default_run(model or "", rules, data),
                data=data,
                options=DataOptions(
                    folder=data_dir, download=download, validation_share=validation_share, skip_corrupt=skip_corrupt,
                    from_disk=from_disk,
                ),
                conversion=ConversionSettings(
                    tuple(rules), tuple(overrides or ()), proof, init, width_factor, depth_factor, seed=seed
                ),
                training=TrainingSettings(
                    recipe=make_recipe(recipe, changes, recipe_set or ()),
                    seed=seed,
                    machine=Machine(
                        device=device, amp=amp, parts=grad_accum_steps, channels_last=channels_last,
                        compiled=torchcompile, sync_batchnorm=sync_bn, workers=workers, deterministic=deterministic,
                    ),
                    mean=o.numbers("--mean", mean), std=o.numbers("--std", std), onnx=onnx, track=tuple(track or ()),
                ),
                build=build, code=code, overwrite=overwrite, command=shlex.join(["spdify", *sys.argv[1:]]),
                factor_given=any(item.startswith("new_lr_factor") for item in recipe_set or ()), name="finetune",
            )  # fmt: skip
            with resumable(asked, progress):
                if compare_baseline or resolution or seeds > 1:
                    compare = compare_baseline or resolution is not None
                    outcome = train_study(asked, sizes_of(resolution), seeds, progress, compare=compare)
                else:
                    outcome = _finetune(asked, progress)
    if os.environ.get("RANK", "0") == "0":
        show_outcome(outcome, as_json=as_json)


def require_alone(context: typer.Context) -> None:
    """Refuse options that a run or study which is resumed would not follow: it has its own."""
    from spdify.errors import UsageError

    allowed = {
        "resume", "code", "pretrained", "track", "as_json", "quiet", "verbose", "debug",
        "engine", "address", "task_cpus", "task_gpus", "task_memory", "retries",
    }  # fmt: skip
    given = [
        name for name in context.params
        if name not in allowed and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]  # fmt: skip
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(
            f"cannot use {options} with --resume: a run goes on with the settings it was started with",
            hint="Leave them out, or start a new run.",
        )


def _is_code(model: str) -> bool:
    from spdify.sources import parse_spec

    return parse_spec(model).kind == "code"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    model: str
    output: Path
    data: str
    options: DataOptions
    conversion: ConversionSettings
    training: TrainingSettings
    build: BuildArguments
    code: str | None
    overwrite: bool
    command: str
    factor_given: bool
    name: str
    cluster: ClusterSettings | None = None


@contextmanager
def resumable(asked: Asked, progress: Progress) -> Iterator[None]:
    """Say how to go on where a run that has begun ends early."""
    files = [asked.output / name for name in ("run.json", "study.json")]
    before = [file.stat().st_mtime_ns if file.is_file() else None for file in files]
    try:
        yield
    except BaseException:
        after = [file.stat().st_mtime_ns if file.is_file() else None for file in files]
        if after != before and not (asked.output / "result.json").exists():
            code = asked.code or (asked.model if _is_code(asked.model) else None)
            more = ["--code", code] if code else []
            more += ["--pretrained"] if asked.build.get("pretrained") and files[1].exists() else []
            more += [word for tracker in asked.training.track for word in ("--track", tracker)]
            more += o.cluster_arguments(asked.cluster)
            progress.note("go on with: " + shlex.join(["spdify", asked.name, "--resume", str(asked.output), *more]))
        raise


Outcome: TypeAlias = "tuple[Path, TrainingResult | StudyPage]"


def resume_any(
    folder: Path,
    code: str | None,
    progress: Progress,
    cluster: ClusterSettings | None = None,
    *,
    pretrained: bool = False,
    track: tuple[str, ...] = (),
) -> Outcome:
    """Go on with a run or a study.

    Raises:
        UsageError: A single run is to go on with a cluster or fetch weights, or a tracker to be told of a study.
    """
    from spdify.errors import UsageError
    from spdify.pipeline.finetuning import resume
    from spdify.pipeline.studying import is_study, resume_study

    if is_study(folder):
        if track:
            raise UsageError("cannot track a comparison: its runs are many", hint="Leave out --track.")
        return folder, resume_study(folder, code=code, pretrained=pretrained, progress=progress, cluster=cluster)
    if pretrained:
        raise UsageError(f"cannot use --pretrained with {folder}: a run has its weights", hint="Leave it out.")
    if cluster is not None:
        raise UsageError(
            f"cannot go on with {folder} on a cluster: it is one run, not a study", hint="Leave out --engine."
        )
    return folder, resume(folder, code=code, track=track, progress=progress)


def _finetune(asked: Asked, progress: Progress) -> Outcome:
    from spdify.pipeline.finetuning import finetune as train

    result = train(
        asked.model, asked.output, data=asked.data, data_options=asked.options, conversion=asked.conversion,
        training=asked.training, build=asked.build, code=asked.code, overwrite=asked.overwrite, command=asked.command,
        progress=progress,
    )  # fmt: skip
    return asked.output, result


def train_study(
    asked: Asked,
    sizes: tuple[int, ...],
    seeds: int,
    progress: Progress,
    *,
    compare: bool,
    contenders: Sequence[Sequence[str]] = (),
) -> Outcome:
    """Train networks side by side, over sizes and seeds."""
    from spdify.errors import UsageError
    from spdify.pipeline.studying import Study, run_study

    if asked.training.track:
        raise UsageError("cannot track a comparison: its runs are many", hint="Leave out --track.")
    if asked.build.get("input_size") and sizes:
        raise UsageError("cannot use --input-size and --resolution together", hint="Leave one of them out.")
    conversion, training, build = asked.conversion, asked.training, asked.build
    recipe = training.recipe
    if compare and not asked.factor_given:
        # What is new is a matter of the conversion: another rate would be another recipe for one of the two.
        recipe = recipe.model_copy(update={"new_lr_factor": 1.0})
    size = build.get("input_size")
    if size is not None and len(set(size[1:])) > 1:
        raise UsageError(f"cannot compare at {size[1:]}: sizes are heights equal to widths here")
    # Whole paths: a study is resumed from anywhere.
    options = asked.options
    study = Study(
        model=asked.model, rules=_whole(conversion.rules), contenders=tuple(map(_whole, contenders)),
        overrides=conversion.overrides, init=conversion.init,
        width_factor=conversion.width_factor, depth_factor=conversion.depth_factor, proof=conversion.proof,
        pretrained=build.get("pretrained", False), checkpoint=_resolved(build.get("checkpoint")),
        num_classes=build.get("num_classes"), model_kwargs=dict(build.get("model_kwargs", {})),
        channels=size[0] if size else build.get("in_chans") or 3, reparameterize=build.get("reparameterize", False),
        data=_absolute(asked.data), data_folder=str(options.folder.resolve()),
        validation_share=options.validation_share, skip_corrupt=options.skip_corrupt, from_disk=options.from_disk,
        recipe=recipe, machine=training.machine, compare=compare,
        seeds=tuple(range(training.seed, training.seed + seeds)), sizes=(size[1],) if size else sizes,
        mean=training.mean, std=training.std, command=asked.command,
    )  # fmt: skip
    page = run_study(
        study, asked.output, code=asked.code, download=asked.options.download, overwrite=asked.overwrite,
        progress=progress, cluster=asked.cluster,
    )  # fmt: skip
    return asked.output, page


def _whole(books: str | Sequence[str]) -> tuple[str, ...]:
    """Give rulebooks with their whole paths."""
    named = (books,) if isinstance(books, str) else books
    return tuple(str(Path(book).resolve()) if Path(book).is_file() else book for book in named)


def _resolved(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).resolve())


def _absolute(data: str) -> str:
    """Give the name of a data set with its whole path."""
    kind, colon, path = data.partition(":")
    return f"{kind}:{Path(path).expanduser().resolve()}" if colon else data


def sizes_of(text: str | None) -> tuple[int, ...]:
    """Read `--resolution`.

    Raises:
        UsageError: It holds no sizes.
    """
    from spdify.errors import UsageError

    try:
        sizes = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(size < SMALLEST for size in sizes):
        raise UsageError(
            f"cannot read --resolution {text!r}: expected whole numbers from {SMALLEST} on, for example 8,16,32"
        )
    return sizes


def default_run(model: str, rules: Sequence[str], data: str) -> Path:
    """Give `./<model>-<rulebook>-<data>`; for a bundle, which is not converted, without the rulebook."""
    from spdify.bundle import is_bundle

    name = Path(model).resolve().name if is_bundle(model) else str(default_output(model, rules))
    return Path(f"{name}-{Path(data.rpartition(':')[2]).name}")


def show_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print what a run or a study came to."""
    from spdify.cli.render import render_study, render_training
    from spdify.reporting.studies import StudyPage

    folder, found = outcome
    if isinstance(found, StudyPage):
        if as_json:
            print_json({"folder": str(folder), "runs": found.runs})
        else:
            render_study(output_console(), found, folder)
    elif as_json:
        print_json({"folder": str(folder), "result": found})
    else:
        render_training(output_console(), found, folder)
