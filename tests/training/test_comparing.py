from __future__ import annotations

import math

import pytest
import torch

from spdify.training.comparing import mean_interval, paired_difference, t_95


def right(*flags: int) -> torch.Tensor:
    return torch.tensor(flags, dtype=torch.bool)


def test_one_seed_counts_the_images_on_which_they_differ() -> None:
    found = paired_difference([right(1, 1, 1, 0)], [right(1, 0, 0, 1)])
    assert found.mean == 0.25
    # Differences 0, 1, 1, -1: variance 0.6875.
    assert found.half_width == pytest.approx(1.96 * math.sqrt(0.6875 / 4))
    assert "one seed" in found.basis
    assert not found.clear
    same = paired_difference([right(1, 0)], [right(1, 0)])
    assert (same.mean, same.half_width, same.clear) == (0, 0, False)


def test_several_seeds_are_paired() -> None:
    first = [right(1, 1, 1, 1), right(1, 1, 0, 0), right(1, 1, 1, 0)]
    second = [right(1, 1, 1, 0), right(1, 0, 0, 0), right(1, 1, 0, 0)]
    found = paired_difference(first, second)
    assert (found.mean, found.half_width) == (0.25, 0.0)
    assert found.clear
    assert found.basis == "95% interval over 3 seeds"


def test_intervals() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / math.sqrt(3))
    assert mean_interval([5.0]) == (5.0, 0.0)
    assert t_95(1) == 12.706
    assert t_95(1000) == 1.960
