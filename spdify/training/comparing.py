"""Whether one network is better than another, and how sure that is."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Student's t, two-sided 95%, by degrees of freedom from 1; beyond, the normal distribution's is close enough.
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL_95 = 1.960


def t_95(freedom: int) -> float:
    """Give the factor of the standard error that makes a two-sided 95% interval."""
    return T_95[freedom - 1] if freedom <= len(T_95) else NORMAL_95


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies, as shares.

    Attributes:
        mean: First less second.
        half_width: Of the 95% interval around it.
        basis: What the interval accounts for, in words.
    """

    mean: float
    half_width: float
    basis: str

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return abs(self.mean) > self.half_width


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Give the mean of several seeds and half of its 95% interval (Student's t); no interval (0) for one value."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, t_95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def paired_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> Difference:
    """Compare two networks that were trained with the same seeds and measured on the same images.

    Several seeds: Student's t over the differences per seed. One seed: only what the choice of test images accounts
    for, from the images on which exactly one of the two is right (McNemar's variance).

    Args:
        first: Per seed, whether each image was right, (N,) bool.
        second: The same of the other network.
    """
    differences = [(a.double() - b.double()) for a, b in zip(first, second, strict=True)]
    means = [d.mean().item() for d in differences]
    if len(means) > 1:
        mean, half = mean_interval(means)
        return Difference(mean, half, f"95% interval over {len(means)} seeds")
    error = differences[0].std(correction=0).item() / math.sqrt(len(differences[0]))
    return Difference(means[0], NORMAL_95 * error, "95% interval of the test images alone: one seed says nothing more")
