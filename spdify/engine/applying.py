"""From a model and a plan to the converted model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.engine.binding import make_rewrite
from spdify.engine.weight_map import map_weights
from spdify.errors import PlanError
from spdify.graph.structure import fingerprint

if TYPE_CHECKING:
    from spdify.records import Decision, Plan


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """Convert a copy of a model as a plan says, weights included.

    Args:
        model: The network that the plan was made for, with any weights; not changed.
        plan: The plan; nothing else is looked at, no rulebook either.

    Returns:
        The converted model: the same class, in the same mode, dtype and device.

    Raises:
        PlanError: The model is not the one that the plan was made for.
    """
    check_fingerprint(model, plan)
    converted = copy.deepcopy(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    # Meta blocks have no weights to copy into: the mapped tensors become theirs.
    weights = map_weights(model.state_dict(keep_vars=False), plan)
    rebuild(converted, plan)
    for decision in plan.applied:
        path = decision.site.path
        block = converted.get_submodule(path)
        start = f"{path}." if path else ""
        own = {name.removeprefix(start): t for name, t in weights.items() if name.startswith(start)}
        # A tensor that the rewrite passed on as it was still belongs to the original.
        block.load_state_dict({name: t.detach().clone() for name, t in own.items()}, assign=True)
        _freeze(block, path, frozen)
    return converted


def check_fingerprint(model: nn.Module, plan: Plan) -> None:
    """Raise `PlanError` unless the model has the structure that the plan was made for."""
    found = fingerprint(model)
    if found != plan.fingerprint:
        msg = f"cannot apply the plan to {type(model).__name__}: expected structure {plan.fingerprint[:12]}, got {found[:12]}"
        raise PlanError(msg, hint="Build the model exactly as it was planned (name, classes, channels, image size).")


def rebuild(model: nn.Module, plan: Plan) -> None:
    """Put the blocks of a plan into a model, in place, on the meta device: structure without weights.

    Raises:
        PlanError: A site is not in the model.
    """
    for decision in plan.applied:
        site = decision.site
        old = _module_at(model, site.path)
        with torch.device("meta"):
            block = _build(decision)
        block.train(old.training)
        for path in (site.path, *site.aliases):
            _set_module(model, path, block)


def _build(decision: Decision) -> nn.Module:
    """Make the block that a decision asks for."""
    if decision.rewrite is None:
        msg = f"cannot apply the decision on {decision.site.name}: it names no rewrite"
        raise PlanError(msg, hint="The plan is damaged: make it again.")
    rewrite = make_rewrite(decision.rewrite, decision.params, where=f"the plan, site {decision.site.name}")
    return rewrite.build(decision.site)


def _module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        msg = f"cannot apply the plan: there is no module {path!r} in {type(model).__name__}"
        raise PlanError(msg, hint="Build the model exactly as it was planned.") from error


def _set_module(model: nn.Module, path: str, block: nn.Module) -> None:
    """Put a block where a module was."""
    if not path:
        msg = "cannot replace the model itself: its only module is the site"
        raise PlanError(msg, hint="Put it into a module of your own, for example torch.nn.Sequential(model).")
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, block)


def _freeze(block: nn.Module, path: str, frozen: set[str]) -> None:
    """Carry `requires_grad=False` over: by name, and to the whole block where the site's weight is frozen."""
    if f"{path}.weight" in frozen:
        block.requires_grad_(requires_grad=False)
    for name, parameter in block.named_parameters():
        if f"{path}.{name}" in frozen:
            parameter.requires_grad_(requires_grad=False)
