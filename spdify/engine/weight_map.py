"""The weights of a converted network, from those of the original: a pure function on state dicts."""

from __future__ import annotations

import zlib
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spdify.engine.binding import make_rewrite
from spdify.engine.carrying import after_changes, as_it_runs, changed_tensors
from spdify.engine.classifiers import head_state
from spdify.engine.places import block_places, place_of
from spdify.engine.repeating import repeated_state
from spdify.errors import PlanError
from spdify.rewrites.drawing import drawn_like, drawn_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spdify.records import Decision, Plan


def map_weights(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Turn a state dict of the original network into one of the converted network.

    Works for any weights of the planned network: other checkpoints, averaged ones, tensors on the meta device. Entries
    of untouched modules are passed on as they are, not copied.

    Args:
        state: State dict of the network that the plan was made for.
        plan: The plan.

    Returns:
        The converted network's state dict. New tensors have the dtype and device of those they stand for; a pool's,
        which stand for none, those of the tensor with the nearest path.

    Raises:
        PlanError: The state dict lacks a site's tensors, or has them in another shape.
    """
    places = block_places(plan)
    state = head_state(_adjusted(repeated_state(state, plan), plan), plan)
    waiting: dict[str, dict[str, Tensor]] = {}
    for decision in (as_it_runs(applied, plan) for applied in plan.applied):
        for path in places.get(decision.site.block_path, ()):
            waiting[path] = site_weights(state, decision, path, init=plan.init)
    replaced = set(waiting)
    mapped: dict[str, Tensor] = {}
    for key, tensor in state.items():
        place = place_of(key.rpartition(".")[0], replaced)
        if place is None:
            mapped[key] = tensor
        else:  # all that the old module had goes, also what the block has no use for
            mapped.update(_below(place, waiting.pop(place, {})))
    for path, tensors in waiting.items():  # pools, which had no entries of their own
        mapped.update(_below(path, tensors))
    return mapped


def _adjusted(state: Mapping[str, Tensor], plan: Plan) -> Mapping[str, Tensor]:
    """Have the tensors follow that a change of channels reaches; `rebuild` does so with buffers that are not saved."""
    new = after_changes(state, plan)
    if plan.init == "random":
        for name, changes in changed_tensors(plan.adjustments).items():
            if name in new and any(change.change == "read" for change in changes):
                new[name] = drawn_like(new[name], seed=_seed(name))
    return new


def _seed(name: str) -> int:
    """Give a seed of a name's own: the same in every run, another for every layer."""
    return zlib.crc32(name.encode())


def site_weights(
    state: Mapping[str, Tensor], decision: Decision, path: str, *, init: str = "exact"
) -> dict[str, Tensor]:
    """Give the block's state dict for one site, as it runs and registered at `path`."""
    site = decision.site
    if decision.rewrite is None:
        msg = f"cannot apply the decision on {site.name}: it names no rewrite"
        raise PlanError(msg, hint="The plan is damaged: make it again.")
    rewrite = make_rewrite(decision.rewrite, decision.params, where=f"the plan, site {site.name}")
    old = {}
    for name, shape in rewrite.reads(site).items():
        tensor = state.get(f"{path}.{name}")
        if tensor is None or tuple(tensor.shape) != shape:
            got = "none" if tensor is None else str(tuple(tensor.shape))
            msg = f"cannot map {path}.{name}: expected a tensor of shape {shape}, got {got}"
            raise PlanError(msg, hint="The weights must be those of the network that the plan was made for.")
        old[name] = tensor
    like = old["weight"] if "weight" in old else _nearest_tensor(state, path)
    if init == "random" and not site.operation:
        made = drawn_weights(lambda: rewrite.build(site), _seed(path))
    else:
        made = rewrite.weights(site, old)
    return {name: _like(tensor, old.get(name, like)) for name, tensor in made.items()}


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """Give a tensor where another is, and floating ones in its dtype: a norm counts batches in whole numbers."""
    return tensor.to(other) if tensor.is_floating_point() else tensor.to(other.device)


def _below(path: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Put the path before each name."""
    return ((f"{path}.{name}", tensor) for name, tensor in tensors.items())


def _nearest_tensor(state: Mapping[str, Tensor], path: str) -> Tensor:
    """Give the floating tensor that shares most of its path with `path`, the first of several.

    A model may have parts in different dtypes or on different devices.
    """
    parts = path.split(".")
    entries: Mapping[str, object] = state  # a module's extra state may be anything
    floating = [(key, t) for key, t in entries.items() if isinstance(t, Tensor) and t.is_floating_point()]

    def shared(entry: tuple[str, Tensor]) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(entry[0].split("."), parts, strict=False)))

    return max(floating, key=shared, default=("", torch.empty(0)))[1]
