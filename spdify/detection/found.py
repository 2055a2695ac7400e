"""What a detector has found in one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Found:
    """Boxes in one image, in any order.

    Attributes:
        boxes: (n, 4), float: left, top, right, bottom in pixels of the image.
        scores: (n,), float: the higher the surer.
        labels: (n,), int64, as the detector counts.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Give the number of boxes."""
        return len(self.scores)

    def renumbered(self, index: Mapping[int, int]) -> Found:
        """Give other numbers to the labels, and leave out boxes whose label has none."""
        kept = torch.tensor([label in index for label in self.labels.tolist()], dtype=torch.bool)
        labels = torch.tensor([index[label] for label in self.labels[kept].tolist()], dtype=torch.int64)
        return Found(self.boxes[kept], self.scores[kept], labels)

    def finite(self) -> Found:
        """Leave out boxes that are no numbers."""
        good = self.boxes.isfinite().all(dim=1) & self.scores.isfinite()
        return Found(self.boxes[good], self.scores[good], self.labels[good])
