"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spdify.cli.terminal import SETTINGS

if TYPE_CHECKING:
    from spdify.pipeline.clusters import ClusterSettings
    from spdify.sources import BuildArguments

MODEL_HELP = (
    "A timm name (resnet50), torchvision:NAME (tv:NAME), ultralytics:NAME (yolov5n, yolov8s, yolo11n …; needs the "
    "extra of that name, AGPL-3.0), hf-hub:ORG/NAME, local-dir:FOLDER, path/file.py:FACTORY, "
    "package.module:FACTORY, or a folder that spdify wrote."
)
MAX_SEED = 2**32 - 1  # what NumPy takes, too
WEIGHTS, SHAPE, SAYING, CLUSTER = "Model and weights", "Model and weights", "Output", "Many machines"


def _set_quiet(value: bool) -> bool:
    SETTINGS.quiet = value
    return value


def _set_verbose(value: bool) -> bool:
    SETTINGS.verbose = value
    return value


def _set_debug(value: bool) -> bool:
    SETTINGS.debug = value
    return value


Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Pretrained = Annotated[
    bool,
    typer.Option("--pretrained", help="Download the registry's weights (default: random).", rich_help_panel=WEIGHTS),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights: safetensors, or a torch file (weights only).", rich_help_panel=WEIGHTS),
]
NumClasses = Annotated[int | None, typer.Option(metavar="N", help="Outputs of the classifier.", rich_help_panel=SHAPE)]
InChans = Annotated[int | None, typer.Option(metavar="N", help="Input channels.", rich_help_panel=SHAPE)]
ModelKwargs = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Argument of the constructor; repeat for more.", rich_help_panel=SHAPE),
]
InputSize = Annotated[
    str | None,
    typer.Option(
        metavar="C,H,W", help="Input size without the batch (default: the model's own).", rich_help_panel=SHAPE
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, max=MAX_SEED, help="Seed of random weights and of the proofs.", rich_help_panel=SHAPE
    ),
]
Reparameterize = Annotated[
    bool,
    typer.Option(
        "--reparameterize",
        help="Fold training-time branches first (timm's reparameterize_model): mobileone, repvgg, fastvit …",
        rich_help_panel=SHAPE,
    ),
]
TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        help="Read an Ultralytics file (ultralytics:FILE.pt) although reading it runs code from it.",
        rich_help_panel=WEIGHTS,
    ),
]
Code = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FACTORY",
        help="For a folder made from code of your own: what builds the original network.",
        rich_help_panel=SHAPE,
    ),
]
Rules = Annotated[
    list[str],
    typer.Option(
        "--rules",
        "-r",
        metavar="NAME|FILE",
        help="Rulebook: see `spdify rules list`. Repeat for more: the first with a rule for a site decides.",
    ),
]
DEFAULT_RULES = ["spd"]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="RULE.PARAM=VALUE",
        help="Change a rule's parameter (book/rule for that of one rulebook); repeat for more.",
    ),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="QUANTITY=AMOUNT",
        help="What the conversion may cost: macs, params or latency (measured here), for example macs=+15%, "
        "params=+1.2M, latency=40ms (in all); repeat for more, all hold. Each site gets an exact form that fits.",
        rich_help_panel="Budget",
    ),
]
Prefer = Annotated[
    str,
    typer.Option(
        metavar="resolution|last|cheapest|GLOB",
        help="Which sites come first: highest resolution, deepest, cheapest, or those that a pattern fits.",
        rich_help_panel="Budget",
    ),
]
IMAGES, MACHINE, RECIPE, COMPARING = "Images", "Machine", "Recipe", "Comparing"
Data = Annotated[
    str,
    typer.Option(
        metavar="NAME|imagefolder:PATH",
        help="cifar10, cifar100, tiny-imagenet, digits (comes with spdify), or a folder: PATH/train/CLASS/*.png with "
        "val and test alike, or PATH/CLASS/*.png.",
        rich_help_panel=IMAGES,
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Where cifar10, cifar100 or tiny-imagenet lies.", rich_help_panel=IMAGES),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch cifar10 or cifar100 if it is not there.", rich_help_panel=IMAGES)
]
ValidationShare = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Share of the training images held back where there is no validation split; 0 for none.",
        rich_help_panel=IMAGES,
    ),
]
SkipCorrupt = Annotated[
    bool,
    typer.Option("--skip-corrupt", help="Leave out and count images that cannot be read.", rich_help_panel=IMAGES),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Mean of images from 0 to 1 (default: known from training, else the data's).",
        rich_help_panel=IMAGES,
    ),
]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Standard deviation, likewise.", rich_help_panel=IMAGES)]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="A GPU where there is one, or as named.", rich_help_panel=MACHINE)
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", "-j", metavar="N", min=0, help="Processes that read image files.", rich_help_panel=MACHINE
    ),
]
FromDisk = Annotated[
    bool,
    typer.Option(
        "--from-disk",
        help="Read images from the disk each time, even where they fit in memory.",
        rich_help_panel=IMAGES,
    ),
]
Recipe = Annotated[
    str,
    typer.Option(metavar="finetune|paper-cifar10|paper-tinyimagenet", help="Preset.", rich_help_panel=RECIPE),
]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="Passes over the data.", rich_help_panel=RECIPE)]
BatchOfStep = Annotated[
    int | None,
    typer.Option(
        "--batch-size", "-b", metavar="N", help="Images per step, over all processes.", rich_help_panel=RECIPE
    ),
]
LearningRate = Annotated[
    float | None, typer.Option(metavar="RATE", help="Learning rate of carried weights.", rich_help_panel=RECIPE)
]
Optimizer = Annotated[
    str | None,
    typer.Option("--optimizer", "--opt", metavar="NAME", help="As timm.optim calls it.", rich_help_panel=RECIPE),
]
WeightDecay = Annotated[float | None, typer.Option(metavar="X", help="Weight decay.", rich_help_panel=RECIPE)]
SizePenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=RECIPE,
        help="What the loss grows by for each GMAC, where the network learns its sizes (rulebook dynopool).",
    ),
]
RecipeSet = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE",
        rich_help_panel=RECIPE,
        help="Any field of the recipe, for example mixup=0.2, smoothing=0.1, ema_decay=0.999, new_lr_factor=5, "
        "aa=rand-m9, clip_grad=1, sched=cosine; repeat for more.",
    ),
]
Amp = Annotated[Literal["no", "bf16", "fp16"], typer.Option(help="Mixed precision.", rich_help_panel=MACHINE)]
Parts = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="Parts that a process's share of a batch is split into.", rich_help_panel=MACHINE
    ),
]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="Memory format NHWC.", rich_help_panel=MACHINE)]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic/--no-deterministic", rich_help_panel=MACHINE,
        help="On a GPU: only algorithms that give the same bits each time, so that --resume does, too.",
    ),
]  # fmt: skip
Compile = Annotated[bool, typer.Option("--torchcompile", help="Train through torch.compile.", rich_help_panel=MACHINE)]
Seeds = Annotated[
    int, typer.Option(metavar="N", min=1, help="Repeat with N seeds, from --seed on.", rich_help_panel=COMPARING)
]
Resolution = Annotated[
    str | None,
    typer.Option(metavar="8,16,32", help="Train both networks at each of these sizes.", rich_help_panel=COMPARING),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="What runs the tasks: this machine, or a Ray cluster (extra: ray), whose nodes have the same versions.",
        rich_help_panel=CLUSTER,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", rich_help_panel=CLUSTER, show_default=False,
        help="Of the cluster's head; auto finds one that runs on this machine (default: RAY_ADDRESS, else a cluster of "
        "this machine alone).",
    ),
]  # fmt: skip
TaskCpus = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=0.1, help="Cores of one task (default: 1).", rich_help_panel=CLUSTER, show_default=False
    ),
]  # fmt: skip
TaskGpus = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=0, help="GPUs of one task, or its part of one (default: 0, it sees none).",
        rich_help_panel=CLUSTER, show_default=False,
    ),
]  # fmt: skip
TaskMemory = Annotated[
    float | None,
    typer.Option(
        metavar="GB", min=0.1, help="Memory that one task reserves on its node, and may hold in a sweep.",
        rich_help_panel=CLUSTER, show_default=False,
    ),
]  # fmt: skip
Retries = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, help="How often a task begins anew whose node or worker was lost (default: 3).",
        rich_help_panel=CLUSTER, show_default=False,
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=SAYING)]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Say nothing but results and faults.", callback=_set_quiet, rich_help_panel=SAYING
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="One line per step.", callback=_set_verbose, rich_help_panel=SAYING)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", callback=_set_debug, rich_help_panel=SAYING)]


def build_arguments(
    *,
    pretrained: bool,
    checkpoint: Path | None,
    num_classes: int | None,
    in_chans: int | None,
    model_kwargs: list[str] | None,
    input_size: str | None,
    seed: int,
    reparameterize: bool,
    trust_checkpoint: bool,
) -> BuildArguments:
    """Put the options of the command line together.

    Raises:
        UsageError: One of them cannot be read, or two contradict each other.
    """
    from spdify.sources import BuildArguments, parse_input_size, parse_model_kwargs

    return BuildArguments(
        pretrained=pretrained,
        checkpoint=checkpoint,
        num_classes=num_classes,
        in_chans=in_chans,
        model_kwargs=parse_model_kwargs(model_kwargs or []),
        input_size=None if input_size is None else parse_input_size(input_size),
        seed=seed,
        reparameterize=reparameterize,
        trust_checkpoint=trust_checkpoint,
    )


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read numbers with commas between them.

    Raises:
        UsageError: They are none.
    """
    from spdify.errors import UsageError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"cannot read {option} {text!r}: expected numbers, for example 0.49,0.48,0.45") from None


def cluster_settings(
    engine: str,
    address: str | None,
    cpus: float | None,
    gpus: float | None,
    memory: float | None,
    retries: int | None,
    at_once: int | None = None,
) -> ClusterSettings | None:
    """Put the options of a cluster together; None where the tasks run on this machine.

    Raises:
        UsageError: They are given without a cluster.
    """
    from spdify.errors import UsageError
    from spdify.pipeline.clusters import ClusterSettings

    given = {
        "--address": address, "--task-cpus": cpus, "--task-gpus": gpus, "--task-memory": memory, "--retries": retries,
    }  # fmt: skip
    if engine == "ray":
        own = ClusterSettings()
        return ClusterSettings(
            address, own.cpus if cpus is None else cpus, own.gpus if gpus is None else gpus, memory,
            own.retries if retries is None else retries, at_once,
        )  # fmt: skip
    if named := [option for option, value in given.items() if value is not None]:
        raise UsageError(f"cannot use {', '.join(named)} on this machine alone", hint="Add --engine ray.")
    return None


def cluster_arguments(settings: ClusterSettings | None) -> list[str]:
    """Give the options that lead to these settings, but for what is the default."""
    from spdify.pipeline.clusters import ClusterSettings

    if settings is None:
        return []
    own = ClusterSettings()
    given = {
        "--address": (settings.address, own.address), "--task-cpus": (settings.cpus, own.cpus),
        "--task-gpus": (settings.gpus, own.gpus), "--task-memory": (settings.memory_gb, own.memory_gb),
        "--retries": (settings.retries, own.retries),
    }  # fmt: skip
    words = [(option, f"{value}") for option, (value, usual) in given.items() if value != usual]
    return ["--engine", "ray", *(word for pair in words for word in pair)]
