"""How long things take, side by side: in turns, over and over, so that what else the machine does meets all alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


def paired_seconds(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, least_seconds: float
) -> dict[str, tuple[float, ...]]:
    """Time each of some calls, in turn (A, B, C, A, B, C, …), after two calls of each to warm up.

    Args:
        contestants: What is called, by name; each returns when its work is done.
        rounds: Turns.
        least_seconds: A turn calls the same as often as this takes, at least once.

    Returns:
        By name, the seconds of one call, for each round.
    """
    repeats = {}
    for name, call in contestants.items():
        call()
        repeats[name] = max(1, round(least_seconds / max(_seconds(call, 1), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            times[name].append(_seconds(call, repeats[name]) / repeats[name])
    return {name: tuple(found) for name, found in times.items()}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - began


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
