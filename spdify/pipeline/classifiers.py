"""Classifiers as they are measured: opened from a model or an ONNX file, with what is known of their inputs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spdify.bundle import is_bundle, read_record
from spdify.engine.classifiers import class_count
from spdify.errors import SourceError, UsageError
from spdify.exporting import OnnxModel, described, reason
from spdify.exporting.examples import Example
from spdify.records import MAX_INPUT
from spdify.sources import check_input_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spdify.pipeline.opening import Opened
    from spdify.records import Preprocessing


@dataclass(frozen=True)
class Classifier:
    """A model as it is measured.

    Attributes:
        name: As it was named.
        predict: Gives logits for a batch of inputs.
        size: C,H,W of the inputs.
        preprocessing: As far as the model says.
        says: Who says so, in words.
        classes: Names by label, as far as the model says.
        batch: The only batch size that it takes; None for any.
    """

    name: str
    predict: Callable[[Tensor], Tensor]
    size: tuple[int, ...]
    preprocessing: Preprocessing | None
    says: str
    classes: tuple[str, ...]
    batch: int | None = None


def classifier_from_model(opened: Opened, name: str, device: torch.device) -> Classifier:
    """Take a model that was opened, on a device.

    Raises:
        RefusedError: It gives no class scores.
        UsageError: It takes something else than one batch of images.
    """
    network = opened.model.to(device).eval()
    if len(opened.inputs.args) != 1 or opened.inputs.kwargs:
        raise UsageError(f"cannot measure {opened.source.name}: it does not take one batch of images")
    class_count(opened.model, opened.inputs)  # says so where it gives no class scores
    record = opened.record
    preprocessing = record.preprocessing if record else opened.source.preprocessing
    trained = record is not None and bool(record.trainings or record.calibrations)
    return Classifier(
        name=name,
        predict=network,
        size=opened.inputs.args[0].shape[1:],
        preprocessing=preprocessing,
        says="as it was trained" if trained else f"as {opened.source.kind} says",
        classes=record.classes if record else (),
    )


def classifier_from_onnx(file: Path, size: tuple[int, ...] | None) -> Classifier:
    """Open an ONNX file.

    Args:
        file: What ONNX Runtime loads.
        size: C,H,W of the inputs, where it is said; None for what the file, or the bundle around it, says.

    Raises:
        SourceError: It cannot be loaded.
        UsageError: Its inputs are no images, or not of this size.
    """
    if not file.is_file():
        raise SourceError(f"cannot open {file}: there is no such file")
    try:
        session = OnnxModel(file)
        texts, shapes = session.metadata, session.input_shapes
    except Exception as error:
        # onnxruntime derives its faults from Exception, one by one; names that are no UTF-8 are Python's to refuse.
        raise SourceError(f"cannot open {file}: ONNX Runtime does not load it: {reason(error)}") from error
    preprocessing, classes = described(texts)
    says = "as the file says"
    if preprocessing is None and is_bundle(file.parent):
        record = read_record(file.parent)
        preprocessing, classes, says = record.preprocessing, record.classes, "as the bundle around it says"
    if len(shapes) != 1 or len(shapes[0]) != 4:  # noqa: PLR2004 - (N, C, H, W)
        raise UsageError(f"cannot measure {file}: expected one input (N, C, H, W), it takes {shapes}")
    batch, *axes = shapes[0]
    fixed = tuple(axis for axis in axes if isinstance(axis, int))
    size = size or (preprocessing.input_size if preprocessing else None) or (fixed if len(fixed) == len(axes) else None)
    if (
        size is None
        or len(size) != len(axes)
        or any(isinstance(a, int) and a != b for a, b in zip(axes, size, strict=True))
    ):
        raise UsageError(
            f"cannot measure {file} on inputs of {size}: it takes {axes}",
            hint="Give --input-size C,H,W as it takes it.",
        )
    check_input_size(size)
    if isinstance(batch, int) and not 1 <= batch * math.prod(size) <= MAX_INPUT:
        raise UsageError(f"cannot measure {file}: it takes batches of {batch}, of {MAX_INPUT:,} values at most")

    def predict(inputs: Tensor) -> Tensor:
        fixed_batch = batch if isinstance(batch, int) else len(inputs)
        missing = fixed_batch - len(inputs)
        padded = torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])]) if missing else inputs
        try:
            scores = torch.from_numpy(session(Example((padded,), {}))[0])
        except Exception as error:
            raise SourceError(f"cannot measure {file}: ONNX Runtime does not run it: {reason(error)}") from error
        if scores.shape[:1] != padded.shape[:1]:
            raise SourceError(f"cannot measure {file}: expected an output for each image, got {tuple(scores.shape)}")
        return scores[: len(inputs)]

    return Classifier(
        str(file), predict, tuple(size), preprocessing, says, classes, batch if isinstance(batch, int) else None
    )


class Timed:
    """Counts the time of forward passes, but for the first one's, which also warms up."""

    def __init__(self, classifier: Classifier) -> None:
        """Take what predicts."""
        self._predict = classifier.predict
        self._images, self._seconds, self._warm = 0, 0.0, False

    def __call__(self, inputs: Tensor) -> Tensor:
        """Give the classifier's logits."""
        began = time.perf_counter()
        logits = self._predict(inputs)
        if logits.is_cuda:
            torch.cuda.synchronize()
        if self._warm:
            self._images += len(inputs)
            self._seconds += time.perf_counter() - began
        self._warm = True
        return logits

    @property
    def images_per_second(self) -> float | None:
        """Give the speed; None where one batch was all."""
        return self._images / self._seconds if self._images else None
