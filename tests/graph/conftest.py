"""Small networks to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def inputs_of() -> Callable[..., Inputs]:
    """Make the inputs of one image of this shape, without the batch."""

    def make(*shape: int) -> Inputs:
        return Inputs(args=(InputSpec(shape=(1, *shape)),))

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: many wait for each other on networks as small as these, the more so beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
