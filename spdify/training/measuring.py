"""How well a classifier does: scores image by image, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spdify.errors import DataError
from spdify.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Predict: TypeAlias = "Callable[[Tensor], Tensor]"

BINS = 15
TOP = 5
NOWHERE = 2**31  # the place of a class among scores that are no numbers


@dataclass(frozen=True)
class Scores:
    """What a classifier says of each image; all (N,).

    Attributes:
        labels: Classes, int64.
        predicted: Classes found, int64.
        places: Place of the right class among all, from 0, int64.
        confidence: Probability of the class found.
        losses: Cross entropy in nats, float64.
        indices: Of the images in their split, int64.
    """

    labels: Tensor
    predicted: Tensor
    places: Tensor
    confidence: Tensor
    losses: Tensor
    indices: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each image was put into its class."""
        return self.places == 0

    def ordered(self) -> Scores:
        """Give the same in the order of the split."""
        order = self.indices.argsort()
        return Scores(**{name: tensor[order] for name, tensor in vars(self).items()})

    def evaluation(self) -> Evaluation:
        """Put the scores together.

        Raises:
            DataError: There are none.
        """
        if not len(self.labels):
            raise DataError("cannot measure on no images")
        return Evaluation(
            images=len(self.labels),
            top1=self.correct.double().mean().item(),
            top5=(self.places < TOP).double().mean().item(),
            loss=self.losses.mean().item(),
            calibration_error=calibration_error(self.confidence, self.correct),
        )

    def confusion(self, classes: int) -> Tensor:
        """Count images by class and class found, (classes, classes), int64."""
        pairs = self.labels * classes + self.predicted
        return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def join(parts: Iterable[Scores]) -> Scores:
    """Put scores of several batches or processes together, in the order of the split."""
    listed = list(parts)
    if not listed:
        raise DataError("cannot measure on no images")
    return Scores(**{name: torch.cat([vars(part)[name] for part in listed]) for name in vars(listed[0])}).ordered()


def score(logits: Tensor, labels: Tensor, indices: Tensor) -> Scores:
    """Score one batch.

    Args:
        logits: (n, classes).
        labels: (n,), int64.
        indices: (n,), int64.
    """
    logits, labels = logits.detach().double().cpu(), labels.cpu()
    probabilities = logits.softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    own = logits.gather(1, labels[:, None])
    # Classes of the same score are taken in their order, as argmax does. Among NaN there is no place.
    before = torch.arange(logits.shape[1]) < labels[:, None]
    places = ((logits > own) | ((logits == own) & before)).sum(dim=1)
    places[logits.isnan().any(dim=1)] = NOWHERE
    losses = cross_entropy(logits, labels, reduction="none")
    return Scores(labels, predicted, places, confidence, losses, indices.cpu())


def calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Give the expected calibration error over 15 equal bins of confidence (Guo et al. 2017, arXiv:1706.04599).

    Args:
        confidence: (N,), 0 to 1.
        correct: (N,), bool.
    """
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gap = torch.zeros(BINS, dtype=torch.float64)
    # Per bin |sum(correct) - sum(confidence)| / N: the bin's weight times the difference of its means.
    gap.index_add_(0, bins, correct.double() - confidence.double())
    return (gap.abs().sum() / len(confidence)).item()


def scores_of(predict: Predict, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> list[Scores]:
    """Score a classifier on a split, batch by batch.

    Args:
        predict: Gives logits (n, classes) for inputs.
        batches: As `measured_batches` gives them.
    """
    with torch.no_grad():
        return [score(predict(inputs), labels, indices) for inputs, labels, indices in batches]
