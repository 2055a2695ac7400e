"""How long things take, side by side: in turns, over and over, so that what else the machine does meets all alike."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

from spdify.records import Ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

ROUNDS, LEAST_SECONDS = 9, 0.2


def paired_seconds(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    least_seconds: float = LEAST_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Time each of some calls, in turn (A, B, C, A, B, C, …), after two calls of each to warm up.

    Args:
        contestants: What is called, by name; each returns when its work is done.
        rounds: Turns.
        least_seconds: A turn calls the same as often as this takes, at least once.
        clock: Seconds.

    Returns:
        By name, the seconds of one call, for each round.
    """
    repeats = {}
    for name, call in contestants.items():
        call()
        repeats[name] = max(1, round(least_seconds / max(_seconds(call, 1, clock), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            times[name].append(_seconds(call, repeats[name], clock) / repeats[name])
    return {name: tuple(found) for name, found in times.items()}


def _seconds(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        call()
    return clock() - began


def ratio_to(base: Sequence[float], times: Sequence[float]) -> Ratio:
    """Give the ratio of two contestants, from what each took in the same rounds.

    Args:
        base: Seconds of the one that is divided by, for each round.
        times: Seconds of the other.

    Returns:
        Median and quartiles of the ratios of the rounds.
    """
    ratios = sorted(time / other for time, other in zip(times, base, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(median=middle, low=low, high=high)


def seconds_per_image(networks: Mapping[str, nn.Module], inputs: Tensor) -> dict[str, float]:
    """Time a forward pass of each network.

    Args:
        networks: In eval mode, on the device of the inputs.
        inputs: (N, C, H, W).

    Returns:
        By name, the median over nine rounds, per image.
    """
    calls = {name: forward_of(network, inputs) for name, network in networks.items()}
    return {name: statistics.median(times) / len(inputs) for name, times in paired_seconds(calls).items()}


def forward_of(network: nn.Module, *args: Tensor, **kwargs: Tensor) -> Callable[[], object]:
    """Give a call that runs a forward pass without gradients, and waits for the device."""
    device = next((t.device for t in (*args, *kwargs.values())), torch.device("cpu"))

    @torch.no_grad()
    def run() -> object:
        out: object = network(*args, **kwargs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return out

    return run
