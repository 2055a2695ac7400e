"""Random numbers that depend on where a run is, and on nothing that came before: so a resumed run draws the same."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_of(*place: int) -> int:
    """Give a seed for a place in a run, for example (run's seed, epoch, step)."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:6], "big")


def generator_at(*place: int) -> torch.Generator:
    """Give a generator for a place in a run."""
    return torch.Generator().manual_seed(seed_of(*place))


def seed_all(*place: int) -> None:
    """Seed the generators of PyTorch, NumPy and Python, which dropout, mixup and augmentation draw from."""
    seed = seed_of(*place)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what timm's mixup draws from
    random.seed(seed)
