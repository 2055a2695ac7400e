"""Stages with more or fewer blocks than before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spdify.errors import PlanError
from spdify.graph.structure import detached_copy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.records import Plan, Repeat


def repeat_blocks(model: nn.Module, plan: Plan) -> None:
    """Give stages the number of blocks that a plan asks for, in place; copies of the last one pass on what they get.

    Raises:
        PlanError: A stage is not in the model, or has another number of blocks.
    """
    for repeat in plan.repeats:
        stage = _stage(model, repeat)
        for _ in range(repeat.before - repeat.after):
            del stage[-1]
        for _ in range(repeat.after - repeat.before):
            copied = detached_copy(stage[repeat.before - 1])
            with torch.no_grad():
                for name in repeat.silenced:
                    copied.get_parameter(name).zero_()
            stage.append(copied)


def repeated_state(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Do the same to a state dict.

    Raises:
        PlanError: It has nothing of a block that is to be repeated.
    """
    repeated = dict(state)
    for repeat in plan.repeats:
        own = f"{repeat.path}." if repeat.path else ""
        last = f"{own}{repeat.before - 1}."
        block = {key.removeprefix(last): tensor for key, tensor in state.items() if key.startswith(last)}
        if not block:
            msg = f"cannot repeat the blocks of {repeat.path}: expected tensors named {last}…, got none"
            raise PlanError(msg, hint="The weights must be those of the network that the plan was made for.")
        gone = tuple(f"{own}{number}." for number in range(repeat.after, repeat.before))
        repeated = {key: tensor for key, tensor in repeated.items() if not (gone and key.startswith(gone))}
        for number in range(repeat.before, repeat.after):
            for name, tensor in block.items():
                new = torch.zeros_like(tensor) if name in repeat.silenced else tensor.clone()
                repeated[f"{own}{number}.{name}"] = new
    return repeated


def _stage(model: nn.Module, repeat: Repeat) -> nn.Sequential | nn.ModuleList:
    try:
        stage = model.get_submodule(repeat.path)
    except AttributeError as error:
        msg = f"cannot repeat the blocks of {repeat.path}: there is no such module in {type(model).__name__}"
        raise PlanError(msg, hint="Build the model exactly as it was planned.") from error
    if not isinstance(stage, (nn.Sequential, nn.ModuleList)) or len(stage) != repeat.before:
        msg = f"cannot repeat the blocks of {repeat.path}: expected a sequence of {repeat.before}"
        raise PlanError(msg, hint="Build the model exactly as it was planned.")
    return stage
