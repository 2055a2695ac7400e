"""Outputs of ONNX Runtime against those of PyTorch, so that agreement means something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spdify.records import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OutputFigure:
    """One output, compared.

    Attributes:
        error: max|a − b| / max|a|, a PyTorch's and b ONNX Runtime's; max|b| where a is all zero.
        telling: Whether the output says anything: it varies, over its elements and, in a batch, from input to input.
    """

    error: float
    telling: bool


def compare(name: str, reference: Sequence[Array], found: Sequence[Array], tolerance: float) -> Check:
    """Compare all outputs of one run.

    The check fails on a difference above `tolerance` (relative to the largest magnitude of the output), on different
    numbers or shapes of outputs, and on NaN or infinity on either side. Where no output varies (a classifier that
    starts at zero) agreement proves nothing: the outcome is `not run`. Where only some do not, the detail names them.

    Args:
        name: Name of the check.
        reference: Outputs of PyTorch.
        found: Outputs of ONNX Runtime, in the same order.
        tolerance: Largest error that is taken for rounding.

    Returns:
        The check, with the largest error over all outputs.
    """
    obstacle = _obstacle(reference, found)
    if obstacle:
        return Check(name=name, outcome="failed", tolerance=tolerance, detail=obstacle)
    figures = [_figure(a, b) for a, b in zip(reference, found, strict=True)]
    worst = max(range(len(figures)), key=lambda i: figures[i].error)
    silent = [i for i, figure in enumerate(figures) if not figure.telling]
    outcome, detail = "passed", ""
    if figures[worst].error > tolerance:
        outcome, detail = "failed", f"output {worst} of {len(figures)} differs"
    elif len(silent) == len(figures):
        outcome, detail = "not run", "the model's outputs are constant for these inputs: that they agree proves nothing"
    elif silent:
        detail = f"constant, so proving nothing: output {', '.join(map(str, silent))} of {len(figures)}"
    return Check.model_validate(
        {"name": name, "outcome": outcome, "value": figures[worst].error, "tolerance": tolerance, "detail": detail}
    )


def _obstacle(reference: Sequence[Array], found: Sequence[Array]) -> str:
    """Say why the outputs cannot be compared number by number, or nothing."""
    if len(reference) != len(found) or not reference:
        return f"expected {len(reference)} outputs, the file gives {len(found)}"
    for i, (a, b) in enumerate(zip(reference, found, strict=True)):
        if a.shape != b.shape:
            return f"output {i}: expected shape {a.shape}, the file gives {b.shape}"
        for owner, array in (("PyTorch", a), ("the file", b)):
            wild = array.size - int(np.isfinite(array).sum())
            if wild:
                return f"output {i} of {owner}: {wild} of {array.size} values are NaN or infinite"
    return ""


def _figure(a: Array, b: Array) -> OutputFigure:
    """Compare one pair of finite outputs of the same shape."""
    if a.size == 0:
        return OutputFigure(error=0.0, telling=False)
    scale = float(np.abs(a).max())
    # In double, so that the difference is not rounded once more, and so that booleans and integers subtract.
    error = float(np.abs(np.subtract(a, b, dtype=np.float64)).max())
    return OutputFigure(error=error / scale if scale else error, telling=scale > 0 and _varies(a))


def _varies(a: Array) -> bool:
    """Tell whether the elements differ and, in a batch, the rows: a bias alone gives each input the same row."""
    if a.size == 1:
        return True
    if a.ndim and a.shape[0] > 1:
        return bool((a[1:] != a[:1]).any())
    return bool((a != a.flat[0]).any())
