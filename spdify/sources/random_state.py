"""Random numbers for building models and inputs, without touching those of the caller."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's CPU generator, Python's and numpy's inside the block and put their states back afterwards.

    `torch.manual_seed` would also reseed the caller's accelerators, which building on the CPU does not use. Some models
    draw from the other two.

    Args:
        seed: Any whole number that `torch.manual_seed` takes.
    """
    python, numpy_ = random.getstate(), np.random.get_state()  # noqa: NPY002 - what models draw from
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_)  # noqa: NPY002
