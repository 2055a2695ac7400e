"""How long networks take, side by side."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

ROUNDS, LEAST_SECONDS = 9, 0.2


def seconds_per_image(networks: Mapping[str, nn.Module], inputs: Tensor) -> dict[str, float]:
    """Time a forward pass of each network, in turn, over and over; so that what else the machine does meets all.

    Args:
        networks: In eval mode, on the device of the inputs.
        inputs: (N, C, H, W).

    Returns:
        By name, the median over nine rounds, per image.
    """
    runs = {name: partial(network, inputs) for name, network in networks.items()}
    return {name: statistics.median(times) / len(inputs) for name, times in timed_rounds(runs).items()}


def timed_rounds(
    runs: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS, least_seconds: float = LEAST_SECONDS
) -> dict[str, list[float]]:
    """Time several runs in turn, over and over, without gradients.

    Args:
        runs: By name, what is timed; each is run once before each measurement.
        rounds: Number of measurements of each.
        least_seconds: About how long one measurement takes; short runs are repeated for as long.

    Returns:
        By name, seconds of one run in each round: those of one round were measured one after the other.
    """
    repeats = {name: max(1, round(least_seconds / _time(run, 1))) for name, run in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(_time(run, repeats[name]) / repeats[name])
    return found


@torch.no_grad()
def _time(run: Callable[[], object], repeats: int) -> float:
    run()
    _wait()
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
