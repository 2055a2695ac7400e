"""Which weights a conversion has carried over, and which are new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spdify.engine import map_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from spdify.records import Plan


def carried_masks(state: Mapping[str, Tensor], plans: Iterable[Plan]) -> dict[str, Tensor]:
    """Find the entries of each tensor that plans have put in.

    A state dict of ones and one of twos are mapped: where the results differ, an entry depends on the old weights. (One
    that does not depend on their scale, such as a standardised weight that was baked, counts as new.)

    Args:
        state: State dict of the network before the plans; only names, shapes and dtypes matter.
        plans: In order.

    Returns:
        By name, for tensors with new entries: True where an entry was carried over. Tensors that were carried over
        whole are not in it.
    """
    both = []
    for fill in (1.0, 2.0):
        filled = {name: torch.full(t.shape, fill, dtype=torch.float64) for name, t in state.items()}
        for plan in plans:
            filled = map_weights(filled, plan)
        both.append(filled)
    masks = {name: tensor != both[1][name] for name, tensor in both[0].items()}
    return {name: mask for name, mask in masks.items() if not mask.all()}
