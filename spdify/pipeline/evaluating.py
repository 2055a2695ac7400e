"""Measuring a model on labelled images, the same way in PyTorch and ONNX Runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from spdify.datasets import (
    DataOptions,
    DataSet,
    check_normalisation,
    is_detection_data,
    mean_and_deviation,
    open_data,
)
from spdify.detection import KNOWN, is_detector
from spdify.errors import DataError, UsageError
from spdify.pipeline.classifiers import Timed, classifier_from_model, classifier_from_onnx
from spdify.pipeline.measuring_detectors import arguments_for_boxes, measure_detector
from spdify.pipeline.opening import open_model
from spdify.records import MAX_INPUT, Machine, MeasuredDetector, MeasuredModel, Preprocessing
from spdify.training import join_all, make_accelerator, measured_batches, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.datasets import Images
    from spdify.pipeline.classifiers import Classifier
    from spdify.pipeline.opening import Opened
    from spdify.sources import BuildArguments

SPLITS = ("test", "validation", "train")
ONNX = ".onnx"
IMAGES_AT_A_TIME = 256


@dataclass(frozen=True)
class Normalisation:
    """What is said about preprocessing on the command line; None where nothing is.

    Attributes:
        mean: Per channel, of images from 0 to 1.
        std: Likewise.
        size: C,H,W of the inputs.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None


def evaluate(  # noqa: PLR0913 - a model, a data set, and how
    model: str | Path | nn.Module,
    *,
    data: str | DataSet = "cifar10",
    split: str | None = None,
    data_options: DataOptions | None = None,
    normalisation: Normalisation | None = None,
    batch_size: int | None = None,
    machine: Machine | None = None,
    build: BuildArguments | None = None,
    code: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> MeasuredModel | MeasuredDetector:
    """Measure a model on a split of a data set: a classifier's accuracy, a detector's average precision.

    Which of the two is asked of the model's class. A classifier's images become inputs as the model was trained: as its
    bundle, ONNX file or source says. Where nobody says, they are normalised by the mean and deviation of the training
    images; the result says which. A detector's are prepared as its own library does.

    Args:
        model: A source, a bundle's folder, an ONNX file (of a classifier), or a module.
        data: Name of a data set, or one that is open; for detectors a folder or file in YOLO's or COCO's format.
        split: `test`, `validation` or `train`; by default the first of these that there is (for detectors the
            validation images come first).
        data_options: Where the data lies and how it is read; the number of channels follows the model.
        normalisation: What is said otherwise.
        batch_size: Images at a time; by default 256, for detectors 16.
        machine: Device and workers.
        build: How to build a source, as `spdify.convert` takes it.
        code: For a bundle of somebody's own network, the source that builds the original.
        progress: Told, in words, what is being done.

    Raises:
        DataError: The classes are not those of the model, images cannot be read, or the data is of the other kind.
        SpdifyError: The model or the data cannot be opened.
    """
    wanted, machine = normalisation or Normalisation(), machine or Machine()
    accelerator = make_accelerator(machine)
    progress("opening the model")
    is_onnx = not isinstance(model, nn.Module) and str(model).endswith(ONNX)
    boxes = None if isinstance(data, DataSet) or not is_detection_data(data) else data
    if is_onnx:
        _refuse_boxes(boxes, str(model), "ONNX files are measured as classifiers only")
        classifier = classifier_from_onnx(Path(str(model)), wanted.size)
    else:
        opened, name = _opened(model, wanted, build or {}, code, boxes=boxes is not None)
        if is_detector(opened.model):
            if wanted.mean is not None or wanted.std is not None:
                raise UsageError(f"cannot use --mean or --std with {name}: a detector normalises as it was made to")
            return measure_detector(
                opened, name, data=data, split=split, options=data_options or DataOptions(), size=wanted.size,
                batch_size=batch_size, workers=machine.workers, accelerator=accelerator, progress=progress,
            )  # fmt: skip
        _refuse_boxes(boxes, name, f"it is a {type(opened.model).__name__}, which is not known as a detector")
        classifier = classifier_from_model(opened, name, accelerator.device)
    progress("reading the data")
    options = replace(data_options or DataOptions(), channels=classifier.size[0])
    dataset = data if isinstance(data, DataSet) else open_data(data, options)
    _require_classes(classifier, dataset)
    name, images = _chosen(dataset, split)
    how, source = resolve_preprocessing(classifier.preprocessing, classifier.says, wanted, classifier.size, dataset)
    progress(f"measuring on {len(images):,} images")
    timed = Timed(classifier)
    at_a_time = classifier.batch or batch_size or images_at_a_time(classifier.size)
    batches = measured_batches(
        images, how, batch_size=at_a_time, rank=accelerator.process_index,
        world=accelerator.num_processes, device="cpu" if is_onnx else accelerator.device, workers=machine.workers,
    )  # fmt: skip
    own = scores_of(lambda inputs: _checked(timed(inputs), classifier, dataset), batches)
    scores = join_all(own, accelerator)
    skipped = f"{len(dataset.skipped)} images could not be read and were left out"
    return MeasuredModel(
        model=classifier.name,
        backend="onnxruntime" if is_onnx else "torch",
        data=dataset.name,
        split=name,
        preprocessing=how,
        preprocessing_from=source,
        classes=dataset.classes,
        evaluation=scores.evaluation(),
        confusion=tuple(tuple(row) for row in scores.confusion(len(dataset.classes)).tolist()),
        images_per_second=timed.images_per_second,
        notes=(skipped,) if dataset.skipped else (),
    )


def images_at_a_time(size: tuple[int, ...]) -> int:
    """Give the number of images that are measured at once, of this size: fewer where they are very large."""
    return max(1, min(IMAGES_AT_A_TIME, MAX_INPUT // math.prod(size)))


def _opened(
    model: str | Path | nn.Module, wanted: Normalisation, build: BuildArguments, code: str | None, *, boxes: bool
) -> tuple[Opened, str]:
    """Open a model; give its name as well."""
    arguments: BuildArguments = {**build}
    if wanted.size is not None:
        arguments["input_size"] = wanted.size
    if boxes:
        arguments = arguments_for_boxes(model, arguments)
    opened = open_model(model, code=code, **arguments)
    return opened, opened.source.name if isinstance(model, nn.Module) else str(model)


def _refuse_boxes(data: str | None, name: str, words: str) -> None:
    if data is not None:
        raise DataError(
            f"cannot measure {name} on {data}: that is data with labelled boxes, and {words}",
            hint=f"Detectors that are known: {KNOWN}. A classifier takes a name or imagefolder:PATH.",
        )


def _checked(logits: Any, classifier: Classifier, dataset: DataSet) -> Tensor:  # noqa: ANN401 - a model's output
    """Refuse outputs that are no scores of these classes."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:  # noqa: PLR2004 - (N, classes)
        raise DataError(f"cannot measure {classifier.name}: its output is not of the form (N, classes)")
    if logits.shape[1] != len(dataset.classes):
        raise DataError(
            f"cannot measure {classifier.name} on {dataset.name}: it has {logits.shape[1]} outputs, the data "
            f"{len(dataset.classes)} classes",
            hint="`spdify finetune` gives a network the classifier that the data needs.",
        )
    return logits


def _require_classes(classifier: Classifier, dataset: DataSet) -> None:
    """Refuse data whose labels mean something else than the model's."""
    if not classifier.classes or classifier.classes == dataset.classes:
        return
    pairs = zip(classifier.classes, dataset.classes, strict=False)
    first = next((f"its class {i} is {a!r}, that of the data {b!r}" for i, (a, b) in enumerate(pairs) if a != b), "")
    counts = f"it knows {len(classifier.classes)} classes, the data has {len(dataset.classes)}"
    raise DataError(
        f"cannot measure {classifier.name} on {dataset.name}: {first or counts}",
        hint="The classes' folders must be called as in training, all of them there.",
    )


def _chosen(dataset: DataSet, split: str | None) -> tuple[str, Images]:
    if split is not None and split not in dataset.splits:
        raise UsageError(
            f"cannot measure on the {split} images of {dataset.name}: there are none",
            hint=f"Expected one of {', '.join(dataset.splits)}.",
        )
    name = split or next(name for name in SPLITS if name in dataset.splits)
    return name, dataset.splits[name]


def resolve_preprocessing(
    known: Preprocessing | None, says: str, wanted: Normalisation, size: tuple[int, ...], dataset: DataSet
) -> tuple[Preprocessing, str]:
    """Say how images become inputs, and where that is known from.

    Args:
        known: What the model says.
        says: Who says so, in words.
        wanted: What is said otherwise.
        size: C,H,W of the inputs.
        dataset: Whose training images give mean and deviation where nobody else does.

    Raises:
        UsageError: Images cannot be normalised so.
    """
    if known is None:
        mean, std = mean_and_deviation(dataset.train)
        known, says = Preprocessing(input_size=size, mean=mean, std=std), "mean and deviation of the training images"
    changes: dict[str, Any] = {"input_size": size}
    if wanted.mean is not None or wanted.std is not None:
        changes |= {"mean": wanted.mean or known.mean, "std": wanted.std or known.std}
        says = "as given"
    how = known.model_copy(update=changes)
    check_normalisation(how.mean, how.std, size[0])
    return how, says
