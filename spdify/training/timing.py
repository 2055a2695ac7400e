"""How long networks take, side by side."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    repeats = {name: max(1, round(LEAST_SECONDS / _time(network, inputs, 1))) for name, network in networks.items()}
    rounds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            rounds[name].append(_time(network, inputs, repeats[name]) / repeats[name] / len(inputs))
    return {name: statistics.median(times) for name, times in rounds.items()}


@torch.no_grad()
def _time(network: nn.Module, inputs: Tensor, repeats: int) -> float:
    network(inputs)
    _wait(inputs)
    began = time.perf_counter()
    for _ in range(repeats):
        network(inputs)
    _wait(inputs)
    return time.perf_counter() - began


def _wait(inputs: Tensor) -> None:
    if inputs.is_cuda:
        torch.cuda.synchronize()
