"""How far apart two outputs are."""

from __future__ import annotations

import math
from collections import namedtuple

import pytest
import torch

from spdify.verification.compare import carries_signal, relative_error, shows_input

ONE = torch.tensor([1.0, 2.0, 4.0])
MASK = torch.tensor([-math.inf, 2.0])
Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - as some models return


@pytest.mark.parametrize(
    ("expected", "actual", "error"),
    [
        (ONE, ONE + 1, 0.25),
        ({"a": ONE, "b": [ONE * 2]}, {"a": ONE, "b": [ONE]}, 0.5),
        (Pair(ONE, ONE), Pair(ONE, ONE), 0.0),
        ((ONE, None, "text"), (ONE, None, "text"), 0.0),
        (ONE, ONE[:2], math.inf),
        ((ONE, ONE), ONE, math.inf),
        (ONE * 0, ONE * 0, 0.0),
        (ONE * 0, ONE, math.inf),
        (MASK, MASK, 0.0),
        (MASK, -MASK, math.inf),
        (MASK, torch.tensor([1.0, 2.0]), math.inf),
        (ONE, ONE * math.nan, math.inf),
        (torch.complex(ONE, ONE), torch.complex(ONE, ONE + 1), 0.25),
        ((ONE, torch.tensor([3])), (ONE, torch.tensor([3])), 0.0),
        ((ONE, torch.tensor([3])), (ONE, torch.tensor([4])), math.inf),
        (torch.tensor([3]), torch.tensor([3]), math.inf),
        (torch.empty(0), torch.empty(0), 0.0),
    ],
)
def test_relative_error(expected: object, actual: object, error: float) -> None:
    assert relative_error(expected, actual) == error


@pytest.mark.parametrize("constant", [torch.ones(5), torch.full((2,), math.nan), torch.ones(1), (), torch.arange(3)])
def test_constants_carry_no_signal(constant: object) -> None:
    assert not carries_signal(constant)


def test_anything_else_does() -> None:
    assert carries_signal({"constant": torch.ones(3), "other": ONE})
    assert carries_signal(torch.tensor([-math.inf, 1.0, 2.0]))


def test_an_output_of_biases_shows_no_input() -> None:
    assert not shows_input(ONE.repeat(2, 1) + 1e-6 * torch.rand(2, 3), 1e-3)
    assert shows_input((ONE.repeat(2, 1), torch.rand(2, 3)), 1e-3)
    assert shows_input(ONE, 1e-3)
