"""Turns, medians and quartiles, by a clock that is told what to say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spdify.benchmarking import forward_of, paired_seconds, ratio_to, seconds_per_image


def test_contestants_take_turns() -> None:
    order: list[str] = []
    now = 0.0

    def call(name: str, seconds: float) -> None:
        nonlocal now
        order.append(name)
        now += seconds

    times = paired_seconds(
        {"a": lambda: call("a", 1.0), "b": lambda: call("b", 3.0)}, rounds=3, least_seconds=2.0, clock=lambda: now
    )
    assert times == {"a": (1.0,) * 3, "b": (3.0,) * 3}
    assert "".join(order) == "aa" + "bb" + "aab" * 3  # warmed up, then as often as two seconds take


def test_the_ratio_is_that_of_the_rounds() -> None:
    ratio = ratio_to((1.0, 2.0, 4.0), (2.0, 2.0, 12.0))
    assert (ratio.low, ratio.median, ratio.high) == (1.5, 2.0, 2.5)
    assert str(ratio) == "2.000 (1.500 to 2.500)"
    assert ratio_to((2.0,), (3.0,)).median == 1.5
    with pytest.raises(ValueError, match="zip"):
        ratio_to((1.0,), (1.0, 2.0))


def test_a_forward_pass_needs_no_gradients() -> None:
    layer = nn.Linear(2, 3)
    out = forward_of(layer, torch.ones(4, 2))()
    assert isinstance(out, torch.Tensor)
    assert not out.requires_grad
    assert seconds_per_image({"one": layer}, torch.ones(4, 2))["one"] > 0
