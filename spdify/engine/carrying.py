"""Tensors that follow a change of channels, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spdify.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from spdify.records import Adjustment, Decision, Layout, Plan, TensorChange


def origins(layout: Layout) -> list[int]:
    """Give, for each new entry, the old one that it is a copy of."""
    found, start = [], 0
    for count, copies in layout.runs:
        for channel in range(start, start + count):
            entries = range(channel * layout.inner, (channel + 1) * layout.inner)
            found += [entry for _ in range(copies) for entry in entries]
        start += count
    return found


def first_copies(layout: Layout) -> list[int]:
    """Give the place of each old entry's first copy among the new ones; those that are taken out have none."""
    found, start = [], 0
    for count, copies in layout.runs:
        for _ in range(count):
            found += list(range(start, start + layout.inner)) if copies else []
            start += copies * layout.inner
    return found


def shares(layout: Layout) -> list[float]:
    """Give the share that each new entry has in the old one."""
    found: list[float] = []
    for count, copies in layout.runs:
        each = [1.0 / copies] * copies if layout.how == "mean" and copies else [1.0, *[0.0] * (copies - 1)][:copies]
        found += count * [share for share in each for _ in range(layout.inner)]
    return found


def follow_change(tensor: Tensor, change: TensorChange) -> Tensor:
    """Give a tensor as it is after a change of channels; differentiable.

    Raises:
        PlanError: It has another number of entries than the change is for.
    """
    layout, axis = change.layout, change.axis
    if axis >= tensor.dim() or tensor.shape[axis] != layout.old:
        msg = f"cannot change {change.name} along axis {axis}: expected {layout.old} entries, got {tuple(tensor.shape)}"
        raise PlanError(msg, hint="The weights must be those of the network that the plan was made for.")
    index = torch.tensor(origins(layout), device=tensor.device)
    grown = tensor.index_select(axis, index)
    if change.change == "repeat" or any(not copies for _, copies in layout.runs):  # some are taken out
        return grown
    if change.change == "draw":
        return _with_drawn_copies(grown, tensor, change)
    if layout.how == "mean":
        return grown * _along(shares(layout), axis, grown)
    # Zeros put in, not multiplied by: the old weights may hold anything.
    new = torch.zeros_like(grown)
    return new.index_copy(axis, torch.tensor(first_copies(layout), device=tensor.device), tensor)


def _with_drawn_copies(grown: Tensor, tensor: Tensor, change: TensorChange) -> Tensor:
    """Draw all but the first copies: equal ones would learn the same."""
    if grown.is_meta:
        return grown
    generator = torch.Generator().manual_seed(change.seed)
    deviation = float(tensor.detach().double().std(unbiased=False))
    drawn = deviation * torch.randn(grown.shape, generator=generator, dtype=torch.float64)
    return drawn.to(grown).index_copy(
        change.axis, torch.tensor(first_copies(change.layout), device=grown.device), tensor
    )


def read_change(tensor: Tensor, change: TensorChange) -> Tensor:
    """Give a changed tensor as it was before, from its first copies: these hold a share where a mean is read."""
    layout, axis = change.layout, change.axis
    places, weighed = first_copies(layout), shares(layout)
    first = tensor.index_select(axis, torch.tensor(places, device=tensor.device))
    if change.change == "read" and layout.how == "mean":
        return first * _along([1.0 / weighed[place] for place in places], axis, first)
    return first


def old_channels(x: Tensor, layout: Layout, axis: int = 1) -> Tensor:
    """Give the old channels of a tensor whose channels became more: the first copies, or the means of all."""
    if layout.how == "select":
        return x.index_select(axis, torch.tensor(first_copies(layout), device=x.device))
    weighed = x * _along(shares(layout), axis, x)
    shape = list(x.shape)
    shape[axis] = layout.old
    index = torch.tensor(origins(layout), device=x.device)
    return torch.zeros(shape, dtype=x.dtype, device=x.device).index_add(axis, index, weighed)


def after_changes(tensors: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Give named tensors of a model as they are after a plan's changes of channels; others are passed on.

    Raises:
        PlanError: One has another number of entries than the plan is for.
    """
    found = dict(tensors)
    for name, changes in changed_tensors(plan.adjustments).items():
        for change in changes if name in found else ():
            found[name] = follow_change(found[name], change)
    return found


def before_changes(tensors: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Give named tensors of a converted model as they were before: the way back from `after_changes`."""
    found = dict(tensors)
    for name, changes in changed_tensors(plan.adjustments).items():
        for change in reversed(changes) if name in found else ():
            found[name] = read_change(found[name], change)
    return found


def changed_tensors(adjustments: Iterable[Adjustment]) -> dict[str, tuple[TensorChange, ...]]:
    """Give the changes of every tensor of a state dict that has some, by its name; shared modules under all names."""
    found: dict[str, tuple[TensorChange, ...]] = {}
    for adjustment in adjustments:
        for path in (adjustment.path, *adjustment.aliases):
            for change in adjustment.tensors:
                name = f"{path}.{change.name}" if path else change.name
                found[name] = (*found.get(name, ()), change)
    return found


def as_it_runs(decision: Decision, plan: Plan) -> Decision:
    """Give a decision with its site as it stands in the converted network, where channels that reach it became more."""
    site = decision.site
    numbers = next((a.numbers for a in plan.adjustments if a.path == site.path and not site.operation), {})
    if not numbers:
        return decision
    known = {name: number for name, number in numbers.items() if name in {"in_channels", "out_channels", "groups"}}
    geometry = site.geometry.model_copy(update=known)
    return decision.model_copy(update={"site": site.model_copy(update={"geometry": geometry})})


def _along(values: list[float], axis: int, like: Tensor) -> Tensor:
    """Lay numbers along one axis of a tensor."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(shape)
