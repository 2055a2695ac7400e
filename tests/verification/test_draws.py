from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from spdify.verification.draws import DrawnByShape

if TYPE_CHECKING:
    from collections.abc import Callable


def _dropped(x: Tensor) -> Tensor:
    return nn.functional.dropout(x, 0.5)


@pytest.mark.parametrize("draw", [_dropped, torch.rand_like, torch.randn_like, lambda x: x.clone().uniform_()])
def test_what_is_drawn_does_not_depend_on_the_memory_format(draw: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2, 3, 4, 5)
    found = []
    for one in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.manual_seed(0)
        with DrawnByShape():
            found.append(draw(one))
    assert torch.equal(*found)
    assert found[0].unique().numel() > 1


class Permuted(nn.Module):
    """A norm that leaves its map in another memory format, which the pool keeps and its block does not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = timm.layers.LayerNorm2d(3)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 3, …)."""
        return nn.functional.dropout(self.pool(self.norm(x)), 0.5, self.training)


def test_dropout_behind_another_memory_format_is_no_fault(convert: Callable) -> None:
    assert convert(Permuted()).prove()["whole model, train"].outcome == "passed"
