"""Measuring a detector on images with labelled boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from spdify.bundle import is_bundle
from spdify.datasets import FORMS_HINT, DataOptions, DataSet, is_detection_data, open_detection_data
from spdify.detection import (
    DetectorOptions,
    average_precision,
    count_objects,
    find_all,
    labels_by_class,
    make_detector,
    named_labels,
    require_pycocotools,
)
from spdify.errors import DataError, UsageError
from spdify.records import MeasuredDetector
from spdify.sources import BuildArguments, label_names, parse_spec, stated_input_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from accelerate import Accelerator

    from spdify.datasets import DetectionSet
    from spdify.detection import Detector, Findings
    from spdify.pipeline.opening import Opened

IMAGES_AT_A_TIME = 16
USUAL_SIZE = (3, 640, 640)  # of YOLO's inputs, where nobody says


def arguments_for_boxes(model: str | Path | nn.Module, build: BuildArguments) -> BuildArguments:
    """Give code of the user's the usual size of a detector's inputs, where no other is asked for.

    Registries and bundles know a size; of code, a wrong guess would be seen nowhere, so elsewhere none is made. Here
    the record says which size was used, and a model that states one is measured at that.
    """
    is_code = isinstance(model, nn.Module) or (not is_bundle(model) and parse_spec(str(model)).kind == "code")
    if is_code and build.get("input_size") is None:
        return {**build, "input_size": USUAL_SIZE}
    return build


def measure_detector(  # noqa: PLR0913 - a model, a data set, and how
    opened: Opened,
    name: str,
    *,
    data: str | DataSet,
    split: str | None,
    options: DataOptions,
    size: tuple[int, ...] | None,
    batch_size: int | None,
    workers: int,
    accelerator: Accelerator,
    progress: Callable[[str], None],
) -> MeasuredDetector:
    """Measure a detector: COCO's average precision on a split.

    Args:
        opened: The model.
        name: As it was named.
        data: A folder or file in YOLO's or COCO's format.
        split: `validation`, `test` or `train`; by default the first of these that there is.
        options: Of these, only `skip_corrupt` has a meaning here.
        size: C,H,W of the inputs, where it is said; None for what the model says.
        batch_size: Images at a time.
        workers: Processes that read images.
        accelerator: Says which device.
        progress: Told, in words, what is being done.

    Raises:
        DataError: The data is no labelled boxes, cannot be read, or has other classes than the model.
        UsageError: An option has no meaning for detectors, or there is no such split.
        SpdifyError: A package is not installed.
    """
    _require_fitting_options(options, accelerator)
    if isinstance(data, DataSet) or not is_detection_data(data):
        spec = data.spec or data.name if isinstance(data, DataSet) else data
        raise DataError(
            f"cannot measure {name} on {spec}: it is a detector, and that is no data with labelled boxes",
            hint=f"{FORMS_HINT} Give it as --data PATH.",
        )
    require_pycocotools()
    progress("reading the labels")
    found = open_detection_data(data, split=split, skip_corrupt=options.skip_corrupt)
    detector = make_detector(
        opened.model,
        DetectorOptions(accelerator.device, _height_and_width(opened, size), label_names(opened.source)),
    )
    if detector.resizes_itself and size is not None:
        raise UsageError(
            f"cannot use --input-size with {name}: a {detector.kind} resizes images itself",
            hint="Leave it out; R-CNNs, RetinaNet and FCOS are built for another size by --model-kwargs min_size=N.",
        )
    labels = labels_by_class(detector, found, name)
    progress(f"measuring on {len(found.images):,} images")
    findings = find_all(detector, found.images, batch_size=batch_size or IMAGES_AT_A_TIME, workers=workers)
    progress("comparing what was found with what there is")
    index = {label: i for i, label in enumerate(labels)}
    return MeasuredDetector(
        model=name,
        detector=detector.kind,
        data=found.name,
        split=found.split,
        images=len(found.images),
        objects=count_objects(found.images),
        classes=found.classes,
        image_size=detector.image_size,
        resizing=detector.resizing,
        precision=average_precision(
            found.images, [one.renumbered(index) for one in findings.found], len(found.classes)
        ),
        images_per_second=findings.images_per_second,
        notes=_notes(found, detector, findings, labels),
    )


def _require_fitting_options(options: DataOptions, accelerator: Accelerator) -> None:
    usual = DataOptions()
    senseless = {
        "--data-dir": options.folder != usual.folder,
        "--download": options.download,
        "--validation-share": options.validation_share != usual.validation_share,
    }
    if given := [option for option, wrong in senseless.items() if wrong]:
        raise UsageError(
            f"cannot use {' and '.join(given)} with a detector: images are read where --data says, split as they are"
        )
    if accelerator.num_processes > 1:
        raise UsageError("cannot measure a detector in several processes", hint="Start one, without torchrun.")


def _height_and_width(opened: Opened, size: tuple[int, ...] | None) -> tuple[int, int]:
    known = size or stated_input_size(opened.model) or tuple(opened.inputs.args[0].shape[1:])
    if len(known) != len(USUAL_SIZE):
        raise UsageError(f"cannot measure a detector on inputs of {known}: expected C,H,W")
    return known[1], known[2]


def _notes(data: DetectionSet, detector: Detector, findings: Findings, labels: tuple[int, ...]) -> tuple[str, ...]:
    others = sum(label not in labels for label in named_labels(detector.names).values()) if detector.background else 0
    said = {
        f"{len(data.skipped)} images could not be read and were left out": bool(data.skipped),
        f"{others} classes that it knows are not in the data: what it finds of them is left out": others > 0,
        f"{findings.not_numbers} boxes were no numbers and were left out": findings.not_numbers > 0,
    }
    return tuple(words for words, holds in said.items() if holds)
