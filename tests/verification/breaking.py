"""Conversions that are wrong on purpose, for tests that a check sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spdify.engine import apply

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spdify.records import Plan


def with_a_wrong_weight(place: int) -> Callable[[nn.Module, Plan], nn.Module]:
    """Give what stands for `apply`, and changes one filter of the block at this place among those of the plan."""

    def broken(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        if plan.applied:
            with torch.no_grad():
                block = converted.get_submodule(plan.applied[place].site.path)
                block.weight[0, 0] += 1e-3  # type: ignore[operator, union-attr, index]
        return converted

    return broken
