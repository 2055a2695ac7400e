"""What a training run is started with: settings, preprocessing, the record of it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from spdify.bundle import is_bundle
from spdify.datasets import check_normalisation, mean_and_deviation
from spdify.errors import UsageError, encodable, printable
from spdify.pipeline.conversion import versions
from spdify.pipeline.opening import build_original
from spdify.records import DataRecord, Machine, Preprocessing, Recipe, Training, TrainingRun
from spdify.training import RECIPES

if TYPE_CHECKING:
    from spdify.datasets import DataOptions, DataSet
    from spdify.pipeline.starting import Start
    from spdify.records import BundleRecord

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


def preprocessing_for(dataset: DataSet, start: Start, training: TrainingSettings) -> Preprocessing:
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


def require_text(*places: str) -> None:
    """Refuse paths that neither records nor safetensors take: a run or study finds what it has by them.

    Raises:
        UsageError: One is not UTF-8.
    """
    for place in places:
        if place != encodable(place):
            raise UsageError(f"cannot train with {printable(place)}: its name is not UTF-8", hint="Rename it.")


def whole_name(data: str) -> str:
    """Give the name of a data set with its full path."""
    kind, colon, path = data.partition(":")
    return f"{kind}:{Path(path).expanduser().resolve()}" if colon else data


def data_place(data: str, folder: Path) -> str:
    """Give where data is found: at its own path, or in the folder of known data sets."""
    return whole_name(data) if ":" in data else str(folder.expanduser().resolve())


def class_notes(record: BundleRecord, dataset: DataSet) -> list[str]:
    """Say when a network was trained on other classes of the same number."""
    if not record.classes or len(record.classes) != len(dataset.classes) or record.classes == dataset.classes:
        return []
    pairs = zip(record.classes, dataset.classes, strict=True)
    old, new = next((a, b) for a, b in pairs if a != b)
    return [f"classes are called otherwise than in the last training ({old}, now {new}): the classifier is kept"]


def run_record(  # noqa: PLR0913 - all that a run is started with
    model: str | Path | nn.Module, dataset: DataSet, options: DataOptions, training: TrainingSettings,
    how: Preprocessing, processes: int, command: str,
) -> TrainingRun:  # fmt: skip
    """Put down all that a run is started with."""
    return TrainingRun(
        model=type(model).__name__ if isinstance(model, nn.Module) else str(model),
        data=whole_name(dataset.spec),
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


def training_of(run: TrainingRun, record: BundleRecord, *, epoch: int) -> Training:
    """Say what has become of a network after so many epochs of a run."""
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
