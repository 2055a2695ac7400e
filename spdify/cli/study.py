"""`spdify study`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spdify.cli import options as o
from spdify.cli.convert import default_output
from spdify.cli.finetune import Asked, require_alone, resumable, resume_any, show_outcome, sizes_of, train_study
from spdify.cli.terminal import training_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

STUDIES = Path("zoo_results") / "studies"


def study(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=o.MODEL_HELP + " Left out with --resume.", show_default=False)
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            "-r",
            metavar="A,B,C+D",
            help="Rulebooks, each of which gives a network of its own: spd,blurpool,cbam; spd+cbam joins two in one.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="BOOK/RULE.PARAM=VALUE", help="Change a parameter of one book; repeat for more."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the study (default: zoo_results/studies/MODEL-DATA)."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with a study that was cut off, with its own settings.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the study in the output folder.")] = False,
    data: o.Data = "cifar10",
    data_dir: o.DataDir = Path("data"),
    download: o.Download = False,
    validation_share: o.ValidationShare = 0.1,
    skip_corrupt: o.SkipCorrupt = False,
    from_disk: o.FromDisk = False,
    mean: o.Mean = None,
    std: o.Std = None,
    seeds: o.Seeds = 2,
    resolution: o.Resolution = None,
    recipe: o.Recipe = "finetune",
    epochs: o.Epochs = None,
    batch_size: o.BatchOfStep = None,
    lr: o.LearningRate = None,
    optimizer: o.Optimizer = None,
    weight_decay: o.WeightDecay = None,
    size_penalty: o.SizePenalty = None,
    recipe_set: o.RecipeSet = None,
    device: o.Device = "auto",
    amp: o.Amp = "no",
    channels_last: o.ChannelsLast = False,
    deterministic: o.Deterministic = True,
    workers: o.Workers = 0,
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
    engine: o.Engine = "local",
    address: o.Address = None,
    task_cpus: o.TaskCpus = None,
    task_gpus: o.TaskGpus = None,
    task_memory: o.TaskMemory = None,
    retries: o.Retries = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """Convert one network by each of several rulebooks, fine-tune all alike, and compare accuracy and cost.

    The network as it was is trained, too. All see the same images in the same order, seed by seed, with one recipe. The
    folder holds a table and charts (report.html, report.md, results.csv) and the runs themselves. With --engine ray the
    runs go side by side to the nodes of a cluster, all of which must see the folder, the data and the network.
    """
    from spdify.errors import UsageError

    if (model is None) == (resume is None) or (model is not None and not rules):
        raise UsageError(
            "cannot tell what to compare: expected a model and --rules, or --resume DIR",
            hint="For example: spdify study resnet18 --pretrained --rules spd,blurpool,cbam --data imagefolder:PATH",
        )
    if resume is not None:
        require_alone(context)
    cluster = o.cluster_settings(engine, address, task_cpus, task_gpus, task_memory, retries)
    with training_progress() as progress:
        progress.step("loading PyTorch")
        if resume is not None:
            outcome = resume_any(resume, code, progress, cluster, pretrained=pretrained)
        else:
            from spdify.datasets import DataOptions
            from spdify.pipeline.converting import ConversionSettings
            from spdify.pipeline.run_settings import TrainingSettings
            from spdify.records import Machine
            from spdify.training import make_recipe

            changes = {
                "epochs": epochs, "batch_size": batch_size, "lr": lr, "optimizer": optimizer,
                "weight_decay": weight_decay, "size_penalty": size_penalty,
            }  # fmt: skip
            contenders = _contenders(rules or "")
            asked = Asked(
                model=model or "",
                output=output or STUDIES / default_study(model or "", data),
                data=data,
                options=DataOptions(
                    folder=data_dir, download=download, validation_share=validation_share, skip_corrupt=skip_corrupt,
                    from_disk=from_disk,
                ),
                conversion=ConversionSettings(contenders[0], tuple(overrides or ()), seed=seed),
                training=TrainingSettings(
                    recipe=make_recipe(recipe, changes, recipe_set or ()),
                    seed=seed,
                    machine=Machine(
                        device=device, amp=amp, channels_last=channels_last, workers=workers,
                        deterministic=deterministic,
                    ),
                    mean=o.numbers("--mean", mean), std=o.numbers("--std", std), onnx=False,
                ),
                build=o.build_arguments(
                    pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
                    model_kwargs=model_kwargs, input_size=input_size, seed=seed, reparameterize=reparameterize,
                    trust_checkpoint=trust_checkpoint,
                ),
                code=code, overwrite=overwrite, command=shlex.join(["spdify", *sys.argv[1:]]),
                factor_given=any(item.startswith("new_lr_factor") for item in recipe_set or ()), name="study",
                cluster=cluster,
            )  # fmt: skip
            with resumable(asked, progress):
                outcome = train_study(asked, sizes_of(resolution), seeds, progress, compare=True, contenders=contenders)
    show_outcome(outcome, as_json=as_json)


def _contenders(rules: str) -> list[tuple[str, ...]]:
    """Read `spd,blurpool,spd+cbam`.

    Raises:
        UsageError: A name is missing.
    """
    from spdify.errors import UsageError

    found = [tuple(book.strip() for book in entry.split("+")) for entry in rules.split(",")]
    if any(not book for books in found for book in books):
        raise UsageError(f"cannot read --rules {rules!r}: expected names with commas between them, such as spd,cbam")
    return found


def default_study(model: str, data: str) -> Path:
    """Give `MODEL-DATA`."""
    rules: Sequence[str] = ()
    name = str(default_output(model, rules)).removesuffix("-")
    return Path(f"{name}-{Path(data.rpartition(':')[2]).name}")
