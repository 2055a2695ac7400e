"""From a model and a plan to the converted model."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.engine.adjusting import adjust_modules
from spdify.engine.binding import make_rewrite
from spdify.engine.carrying import as_it_runs, changed_tensors
from spdify.engine.classifiers import replace_heads
from spdify.engine.guards import guard_classifier, guard_folding
from spdify.engine.leading import link_blocks
from spdify.engine.places import block_places, keep_place
from spdify.engine.repeating import repeat_blocks
from spdify.engine.ultralytics_hooks import remember
from spdify.engine.weight_map import map_weights
from spdify.errors import PlanError
from spdify.graph.adapters import unlike
from spdify.graph.edits import edit_module, expression_of
from spdify.graph.structure import detached_copy, fingerprint, lazy_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from spdify.records import Decision, Plan, Site


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """Convert a copy of a model as a plan says, weights included.

    Args:
        model: The network that the plan was made for, with any weights; not changed.
        plan: The plan; nothing else is looked at, no rulebook either.

    Returns:
        The converted model: the same class, in the same mode, dtype and device. What was frozen stays frozen: new
        parameters are where the site's weight was, or, for a pool, where all parameters of the innermost module
        around it that has any were. A block that replaces nothing is trained.

    Raises:
        PlanError: The model is not the one that the plan was made for.
        TraceError: The model holds something that cannot be copied.
    """
    return _apply(model, plan, detached_copy)


def apply_lazily(model: nn.Module, plan: Plan) -> nn.Module:
    """Convert a copy as `apply` does, whose untouched tensors take memory only when one of both models is written to.

    For models that nobody else holds: memory that numpy or other libraries look at as well would change hands.
    """
    return _apply(model, plan, lazy_copy)


def apply_structure(model: nn.Module, plan: Plan) -> nn.Module:
    """Convert a copy as `apply` does, of a network that may be another where the plan changes nothing (its head, say).

    Raises:
        PlanError: It is another where the plan does.
    """
    return _converted(model, plan, detached_copy)


def _apply(model: nn.Module, plan: Plan, copy: Callable[[nn.Module], nn.Module]) -> nn.Module:
    check_fingerprint(model, plan)
    return _converted(model, plan, copy)


def _converted(model: nn.Module, plan: Plan, copy: Callable[[nn.Module], nn.Module]) -> nn.Module:
    converted = copy(model)
    # Meta blocks have no weights to copy into: the mapped tensors become theirs.
    weights = map_weights(model.state_dict(keep_vars=False), plan)
    rebuild(converted, plan)
    inserted = {path for d in plan.applied if d.site.inserted for path in d.site.block_paths}
    for path, *_ in block_places(plan).values():
        block = converted.get_submodule(path)
        own = {name.removeprefix(f"{path}."): t for name, t in weights.items() if name.startswith(f"{path}.")}
        # A tensor that the rewrite passed on as it was still belongs to the original.
        block.load_state_dict({name: t.detach().clone() for name, t in own.items()}, assign=True)
        if path not in inserted:
            _freeze(block, model, path)
    for head in plan.heads:
        own = {name: weights[f"{head.path}.{name}"] for name in converted.get_submodule(head.path).state_dict()}
        converted.get_submodule(head.path).load_state_dict(own, assign=True)
    if plan.init == "random":  # else adjusted tensors have followed where they are
        _load(converted, weights, changed_tensors(plan.adjustments))
    return converted


def _load(model: nn.Module, weights: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Put mapped weights into a model, in place; those of blocks are there already."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name in names:
            if name in own and name in weights:
                own[name].copy_(weights[name])


def check_fingerprint(model: nn.Module, plan: Plan) -> None:
    """Raise `PlanError` unless the model has the structure that the plan was made for."""
    found = fingerprint(model)
    if found != plan.fingerprint:
        name, planned = type(model).__name__, plan.fingerprint
        msg = f"cannot apply the plan to {name}: expected structure {planned[:12]}, got {found[:12]}"
        raise PlanError(msg, hint="Build the model exactly as it was planned (name, classes, channels, image size).")


def rebuild(model: nn.Module, plan: Plan) -> None:
    """Put the blocks of a plan into a model, in place, on the meta device: structure without weights.

    Raises:
        PlanError: A site is not in the model.
    """
    repeat_blocks(model, plan)
    replace_heads(model, plan)
    places = block_places(plan)
    edits: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for decision in (as_it_runs(applied, plan) for applied in plan.applied):
        site = decision.site
        paths = places.get(site.block_path, ())
        old = [_module_at(model, site.path if site.operation else path) for path in paths]
        if not site.operation:
            _require_constants(old, decision)
        with torch.device("meta"):
            block = _build(decision)
        for path, module in zip(paths, old, strict=True):
            block.train(module.training)
            if not site.operation:
                keep_place(module, block)
            _set_module(model, path, block)
        if site.operation and paths:
            edits[site.path].append((site.operation, site.operator))
        if site.functional and paths:
            _check_expression(model.get_submodule(site.path), site)
    for path, chosen in edits.items():
        edit_module(model.get_submodule(path), tuple(chosen))
    link_blocks(model, plan)
    adjusted = adjust_modules(model, plan, places)
    guard_classifier(model, adjusted)
    inserted = {d.site.block_path for d in plan.applied if d.site.inserted}
    guard_folding(
        model, (*adjusted, *(path for site, paths in places.items() if site not in inserted for path in paths))
    )
    remember(model, plan)


def _check_expression(owner: nn.Module, site: Site) -> None:
    """Raise `PlanError` where the code of a class is not the one that the plan was made for."""
    found = expression_of(owner, site.operation)
    if found != site.expression:
        msg = f"cannot apply the plan at {site.name}: expected the expression {site.expression!r}, got {found!r}"
        raise PlanError(msg, hint="The code of the class has changed since: convert the model again.")


def _build(decision: Decision) -> nn.Module:
    """Make the block that a decision asks for."""
    if decision.rewrite is None:
        msg = f"cannot apply the decision on {decision.site.name}: it names no rewrite"
        raise PlanError(msg, hint="The plan is damaged: make it again.")
    rewrite = make_rewrite(decision.rewrite, decision.params, where=f"the plan, site {decision.site.name}")
    return rewrite.build(decision.site)


def _require_constants(modules: list[nn.Module], decision: Decision) -> None:
    """Raise `PlanError` where a module has other constants than were planned with: no fingerprint shows them."""
    for module in modules:
        if different := unlike(module, decision.site):
            msg = f"cannot apply the plan at {decision.site.name}: the {type(module).__name__} there has {different}"
            raise PlanError(msg, hint="Build the model exactly as it was planned.")


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


def _freeze(block: nn.Module, model: nn.Module, path: str) -> None:
    """Carry `requires_grad=False` over from the original `model` to the block that took the place of `path`."""
    try:
        flags = {name: p.requires_grad for name, p in model.get_submodule(path).named_parameters()}
    except AttributeError:  # a functional call has no module of its own
        flags = {}
    new = flags.get("weight", _surroundings_train(model, path))
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(flags.get(name, new))


def _surroundings_train(model: nn.Module, path: str) -> bool:
    """Whether the innermost module around `path` that has parameters has one that is trained; True without any."""
    while path:
        path = path.rpartition(".")[0]
        if flags := [parameter.requires_grad for parameter in model.get_submodule(path).parameters()]:
            return any(flags)
    return True
