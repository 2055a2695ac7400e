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
        last = stage[repeat.before - 1] if repeat.after > repeat.before else None
        for _ in range(repeat.after - repeat.before if last is not None else 0):
            copied = detached_copy(last)  # type: ignore[arg-type]  # not None, by the line above
            with torch.no_grad():
                for name in repeat.silenced:
                    copied.get_parameter(name).zero_()
            stage.append(copied)


def repeated_state(state: Mapping[str, Tensor], plan: Plan) -> Mapping[str, Tensor]:
    """Do the same to a state dict."""
    for repeat in plan.repeats:
        state = _repeated(state, repeat)
    return state


def _repeated(state: Mapping[str, Tensor], repeat: Repeat) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    own = f"{repeat.path}." if repeat.path else ""
    for key, tensor in state.items():
        number, _, rest = key.removeprefix(own).partition(".")
        block = int(number) if key.startswith(own) and number.isdigit() else -1
        if block < repeat.after:
            kept[key] = tensor
        if block == repeat.before - 1:
            last[rest] = tensor
        if block == repeat.before - 1 and last and _is_last(state, key, own, block):
            for more in range(repeat.before, repeat.after):
                for name, value in last.items():
                    kept[f"{own}{more}.{name}"] = torch.zeros_like(value) if name in repeat.silenced else value.clone()
    return kept


def _is_last(state: Mapping[str, Tensor], key: str, own: str, block: int) -> bool:
    """Whether `key` is the last entry of a block: its copies come right behind, as in the model."""
    return key == [name for name in state if name.startswith(f"{own}{block}.")][-1]


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
