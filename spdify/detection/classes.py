"""Which label of a detector means which class of the data; refused where that is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.errors import DataError

if TYPE_CHECKING:
    from spdify.datasets import DetectionSet
    from spdify.detection.detectors import Detector

COCO_OUTPUTS = 91  # torchvision's detectors count as COCO numbers its categories, with holes
PLACEHOLDERS = ("{}", "class{}", "class_{}")
UNUSED = "N/A"  # what torchvision calls a number that COCO does not use
MOST_NAMED = 3


def labels_by_class(detector: Detector, data: DetectionSet, model: str) -> tuple[int, ...]:
    """Give the detector's label of each of the data's classes.

    Without a background the two must be as many, and are paired in their order. With one (torchvision): by name where
    the names of the labels are known; else COCO's own numbers for 91 labels, or one more than the index where there is
    one label more than classes.

    Args:
        detector: What finds.
        data: What is to be found.
        model: Name of the model, for messages.

    Raises:
        DataError: Counts or names do not fit.
    """
    if not detector.background:
        return _in_order(detector, data, model)
    if detector.names and _are_names(data.classes):
        return _by_name(detector.names, data, model)
    ids = data.category_ids
    if ids and detector.outputs == COCO_OUTPUTS and min(ids) > 0 and max(ids) < COCO_OUTPUTS:
        return ids
    count = len(data.classes)
    if detector.outputs == count + 1:
        return tuple(range(1, count + 1))
    raise DataError(
        f"cannot measure {model} on {data.name}: it has {detector.outputs} outputs (the first is the background), the "
        f"data {count} classes",
        hint=f"Expected {count + 1} outputs, or a model that says what its outputs are called (tv:NAME, with "
        "--pretrained or --checkpoint), or COCO's annotations for one with 91.",
    )


def _in_order(detector: Detector, data: DetectionSet, model: str) -> tuple[int, ...]:
    count = len(data.classes)
    if detector.outputs != count:
        raise DataError(
            f"cannot measure {model} on {data.name}: it has {detector.outputs} classes, the data {count}",
            hint="The data must have the classes that the model was trained for, all of them in their order.",
        )
    if _are_names(detector.names) and _are_names(data.classes):
        pairs = enumerate(zip(detector.names, data.classes, strict=True))
        if wrong := next((f"class {i} is {a!r}, that of the data {b!r}" for i, (a, b) in pairs if a != b), None):
            raise DataError(
                f"cannot measure {model} on {data.name}: its {wrong}",
                hint="The data must have the classes that the model was trained for, by the same names.",
            )
    return tuple(range(count))


def _by_name(names: tuple[str, ...], data: DetectionSet, model: str) -> tuple[int, ...]:
    label = named_labels(names)
    if unknown := [name for name in data.classes if name not in label]:
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise DataError(
            f"cannot measure {model} on {data.name}: it does not know the "
            f"{'class' if len(unknown) == 1 else 'classes'} {', '.join(map(repr, unknown[:MOST_NAMED]))}{more}",
            hint=f"It knows {len(label)} by name: {', '.join(list(label)[:MOST_NAMED])} …",
        )
    return tuple(label[name] for name in data.classes)


def named_labels(names: tuple[str, ...]) -> dict[str, int]:
    """Give the labels by name, the background and COCO's unused numbers left out."""
    return {name: label for label, name in enumerate(names) if label and name != UNUSED}


def _are_names(names: tuple[str, ...]) -> bool:
    """Whether names say something: who has none often counts."""
    return bool(names) and not any(all(name == form.format(i) for i, name in enumerate(names)) for form in PLACEHOLDERS)
