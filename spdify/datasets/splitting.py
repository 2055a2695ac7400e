"""Parts of a data set that are held back, class by class, the same in every run."""

from __future__ import annotations

import torch
from torch import Tensor

SPLIT_SEED = 0  # never the run's: runs with other seeds must be measured on the same images


def hold_back(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Choose a part of each class at random, always the same.

    Args:
        labels: (N,), int64.
        fraction: Share of each class, rounded, that is held back.

    Returns:
        Indices of what stays and of what is held back, each in ascending order.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        shuffled = members[torch.randperm(len(members), generator=generator)]
        held[shuffled[: round(fraction * len(members))]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]
