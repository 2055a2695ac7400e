"""How far apart two results are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from spdify.records import Check


def tensors_of(output: object) -> list[Tensor]:
    """Give the floating-point tensors of an output, however it is nested; complex ones as pairs of real numbers."""
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    real = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in leaves]
    return [leaf for leaf in real if leaf.is_floating_point()]


def relative_error(expected: object, actual: object, *, floor: float = 0.0) -> float:
    """Give the largest difference over the largest expected magnitude, largest over all tensors of the outputs.

    Infinite where the outputs differ in number, shape or integers, or in what is not finite (a mask's -inf must stay).

    Args:
        expected: Output of the original, however nested.
        actual: Output to compare.
        floor: Least magnitude that a difference is related to.
    """
    if not _same_integers(expected, actual):
        return math.inf
    first, second = tensors_of(expected), tensors_of(actual)
    if len(first) != len(second) or not first:
        return math.inf
    return max(_error_of(a, b, floor) for a, b in zip(first, second, strict=True))


def _error_of(a: Tensor, b: Tensor, floor: float = 0.0) -> float:
    """Compare two floating-point tensors."""
    if a.shape != b.shape:
        return math.inf
    if not a.numel():
        return 0.0
    # Nearly always all is finite, and then both norms are: one pass each, nothing is copied but the difference.
    scale, difference = _largest(a), _largest(a - b)
    if math.isfinite(scale) and math.isfinite(difference):
        return _ratio(difference, max(scale, floor))
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return math.inf
    a, b = a[finite], b[finite]
    if not a.numel():
        return 0.0
    return _ratio(_largest(a - b), max(_largest(a), floor))


def _largest(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach(), ord=math.inf))


def _ratio(difference: float, scale: float) -> float:
    return difference / scale if scale else (math.inf if difference else 0.0)


def _same_integers(expected: object, actual: object) -> bool:
    """Whether all integer and boolean tensors are equal."""
    first, second = (
        [t for t in tree_leaves(output) if isinstance(t, Tensor) and not (t.is_floating_point() or t.is_complex())]
        for output in (expected, actual)
    )
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def carries_signal(output: object) -> bool:
    """Whether an output differs from place to place: comparing constants proves nothing."""
    finite = [t if t.isfinite().all() else t[t.isfinite()] for t in tensors_of(output)]  # a mask takes many times t
    return any(t.numel() > 1 and t.std().item() > 1e-12 * t.abs().max().item() for t in finite)


def shows_input(output: object, tolerance: float) -> bool:
    """Whether the first two of a batch give outputs further apart than the tolerance; without a batch, any signal."""
    batched = [t for t in tensors_of(output) if t.dim() > 1 and t.shape[0] > 1]
    if not batched:
        return carries_signal(output)
    return any(_error_of(t[0], t[1]) > tolerance for t in batched)


def failed(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Give the checks that failed."""
    return tuple(check for check in checks if check.outcome == "failed")
