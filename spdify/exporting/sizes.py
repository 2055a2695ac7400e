"""Sizes of images, other than the example's, at which files of open size are compared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from spdify.exporting.runtime import Run, reference_outputs

if TYPE_CHECKING:
    from torch import nn

    from spdify.exporting.examples import Examples

BATCHES = (1, 3)


def other_sizes(examples: Examples, reference: nn.Module) -> list[Run]:
    """Give runs at sizes that are not the example's: odd ones if the network takes them, else even steps.

    None where it takes none of them, or no images.
    """
    if not examples.takes_images:
        return []
    _, _, height, width = examples.at(1).tensors[0].shape
    odd = ((3 * height // 4) | 1, width | 1), (height | 1, (5 * width // 4) | 1)
    even = (height, 2 * width), (2 * height, width)
    for sizes in (odd, even):
        runs = [
            Run(f"onnx size {h}x{w}", examples.resized(batch, (h, w)), partial(reference_outputs, reference))
            for batch, (h, w) in zip(BATCHES, sizes, strict=True)
        ]
        try:
            for run in runs:
                run.reference(run.example)
        except Exception:  # noqa: BLE001, S112 - a size that the network itself does not take
            continue
        return runs
    return []
