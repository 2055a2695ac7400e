"""How far apart two results are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from spdify.records import Check


def tensors_of(output: object) -> list[Tensor]:
    """Give the floating-point tensors of an output, however it is nested."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def relative_error(expected: object, actual: object) -> float:
    """Give the largest difference over the largest expected magnitude, largest over all tensors of the outputs.

    Infinite where the outputs differ in number or shape, or hold anything that is not finite.
    """
    first, second = tensors_of(expected), tensors_of(actual)
    if len(first) != len(second) or not first:
        return math.inf
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
            return math.inf
        scale = a.abs().max().item() if a.numel() else 1.0
        difference = (a - b).abs().max().item() if a.numel() else 0.0
        worst = max(worst, difference / scale if scale else (math.inf if difference else 0.0))
    return worst


def carries_signal(output: object) -> bool:
    """Whether an output differs from place to place: comparing constants proves nothing."""
    return any(t.numel() > 1 and t.std().item() > 1e-12 * t.abs().max().item() for t in tensors_of(output))


def failed(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Give the checks that failed."""
    return tuple(check for check in checks if check.outcome == "failed")
