"""Random numbers for building models and inputs, without touching those of the caller."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's CPU generator inside the block and put its state back afterwards.

    `torch.manual_seed` would also reseed the caller's accelerators, which building on the CPU does not use.

    Args:
        seed: Any whole number that `torch.manual_seed` takes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
