"""Modules outside the sites that follow a change of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from spdify.blocks import SPDBatchNorm2d, SPDGroupNorm
from spdify.engine.binding import make_rewrite
from spdify.engine.carrying import follow_change
from spdify.engine.places import keep_place, place_of
from spdify.errors import PlanError
from spdify.graph.carriers import CHANNEL_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.records import Adjustment, Plan, TensorChange

#: What a stem's activation may become.
ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}
#: The block of an adjustment whose module becomes part of what the rewrite of its site makes.
HELD = "held"


def adjust_modules(model: nn.Module, plan: Plan, places: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Give every module that a plan's adjustments name its new channels, in place; tensors follow where they are.

    Args:
        model: With its blocks put in.
        plan: The plan.
        places: Of its blocks (`spdify.engine.places`): what became a block was adjusted with it.

    Returns:
        Paths of the modules that were changed.

    Raises:
        PlanError: A module is not in the model, or not as it was planned.
    """
    replaced = {path for paths in places.values() for path in paths}
    changed = []
    for adjustment in plan.adjustments:
        if place_of(adjustment.path, replaced) is None and (
            adjustment.tensors or adjustment.numbers or adjustment.block
        ):
            adjust(model, adjustment, plan)
            changed.append(adjustment.path)
    return tuple(changed)


def adjust(model: nn.Module, adjustment: Adjustment, plan: Plan | None = None) -> None:
    """Give one module its new channels, or another in its place.

    Args:
        model: Changed in place.
        adjustment: Of a module in it.
        plan: What the adjustment belongs to; only where a rewrite makes what takes the module's place.

    Raises:
        PlanError: It is not in the model, or not as it was planned.
    """
    try:
        module = model.get_submodule(adjustment.path)
    except AttributeError as error:
        raise _differs(adjustment, "no module") from error
    if type(module).__name__ != adjustment.type_name:
        raise _differs(adjustment, f"a {type(module).__name__}")
    before = getattr(module, "num_channels", 0)
    for change in adjustment.tensors:
        _follow(module, change, adjustment)
    for name, value in adjustment.numbers.items():
        if name not in CHANNEL_NUMBERS or not hasattr(module, name):
            raise _differs(adjustment, f"no {name}")
        setattr(module, name, value)
    if adjustment.block:
        block = _held(module, adjustment, plan) if adjustment.block == HELD else _block(module, adjustment, before)
        keep_place(module, block)
        for path in (adjustment.path, *adjustment.aliases):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, block)


def _held(module: nn.Module, adjustment: Adjustment, plan: Plan | None) -> nn.Module:
    """Have the rewrite of the adjustment's site make what holds a module."""
    decision = next((d for d in plan.applied if d.site.name in adjustment.sites), None) if plan is not None else None
    if decision is None:
        raise _differs(adjustment, "no site that it belongs to")
    rewrite = make_rewrite(decision.rewrite or "", decision.params, where=f"the plan, site {decision.site.name}")
    return rewrite.around(decision.site, module).train(module.training)


def _block(module: nn.Module, adjustment: Adjustment, before: int) -> nn.Module:
    """Make what takes the place of a module: another activation, or a norm of phases."""
    if adjustment.block in ACTIVATIONS:
        return ACTIVATIONS[adjustment.block]().train(module.training)
    if adjustment.block == SPDBatchNorm2d.__name__ and type(module) is nn.BatchNorm2d:
        return SPDBatchNorm2d.from_norm(module, _copies(adjustment))
    if not isinstance(module, nn.GroupNorm) or adjustment.block != SPDGroupNorm.__name__:
        raise _differs(adjustment, f"no place for a {adjustment.block}")
    return SPDGroupNorm.from_norm(module, module.num_channels // max(before, 1))


def _copies(adjustment: Adjustment) -> int:
    copies = adjustment.takes.copies if adjustment.takes is not None else None
    if copies is None:
        raise _differs(adjustment, "channels with different numbers of copies")
    return copies


def _follow(module: nn.Module, change: TensorChange, adjustment: Adjustment) -> None:
    tensor = getattr(module, change.name, None)
    if not isinstance(tensor, Tensor):
        raise _differs(adjustment, f"no tensor {change.name}")
    new = follow_change(tensor.detach(), change)
    if isinstance(tensor, nn.Parameter):
        setattr(module, change.name, nn.Parameter(new, requires_grad=tensor.requires_grad))
    else:
        setattr(module, change.name, new)


def _differs(adjustment: Adjustment, found: str) -> PlanError:
    msg = f"cannot adjust {adjustment.path}: expected a {adjustment.type_name} with its channels, got {found}"
    return PlanError(msg, hint="Build the model exactly as it was planned.")
