"""The weights of a converted network, from those of the original: a pure function on state dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spdify.engine.binding import make_rewrite
from spdify.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from spdify.records import Decision, Plan


def map_weights(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Turn a state dict of the original network into one of the converted network.

    Works for any weights of the planned network: other checkpoints, averaged ones, tensors on the meta device. Entries of
    untouched modules are passed on as they are, not copied.

    Args:
        state: State dict of the network that the plan was made for.
        plan: The plan.

    Returns:
        The converted network's state dict, new tensors in the dtype and on the device of those they stand for.

    Raises:
        PlanError: The state dict lacks a site's tensors, or has them in another shape.
    """
    default = _common_tensor(state)
    replaced: dict[str, dict[str, Tensor]] = {}
    for decision in plan.applied:
        for prefix in (decision.site.path, *decision.site.aliases):
            replaced[prefix] = site_weights(state, decision, prefix, default)
    mapped: dict[str, Tensor] = {}
    for key, tensor in state.items():
        prefix = key.rpartition(".")[0]
        if prefix in replaced:
            mapped.update(_named(prefix, replaced.pop(prefix)))
        elif key not in mapped:
            mapped[key] = tensor
    for prefix, tensors in replaced.items():  # pools, which had no entries of their own
        mapped.update(_named(prefix, tensors))
    return mapped


def site_weights(state: Mapping[str, Tensor], decision: Decision, prefix: str, default: Tensor) -> dict[str, Tensor]:
    """Give the block's state dict for one site, which is registered at `prefix`."""
    site = decision.site
    start = f"{prefix}." if prefix else ""
    names = _tensor_shapes(decision)
    old = {}
    for name, shape in names.items():
        tensor = state.get(start + name)
        if tensor is None or tuple(tensor.shape) != shape:
            got = "none" if tensor is None else str(tuple(tensor.shape))
            msg = f"cannot map {start}{name}: expected a tensor of shape {shape}, got {got}"
            raise PlanError(msg, hint="The weights must be those of the network that the plan was made for.")
        old[name] = tensor
    if decision.rewrite is None:
        msg = f"cannot apply the decision on {site.name}: it names no rewrite"
        raise PlanError(msg, hint="The plan is damaged: make it again.")
    rewrite = make_rewrite(decision.rewrite, decision.params, where=f"the plan, site {site.name}")
    like = next(iter(old.values()), default)
    return {name: tensor.to(like) for name, tensor in rewrite.weights(site, old).items()}


def _tensor_shapes(decision: Decision) -> dict[str, tuple[int, ...]]:
    """Give names and shapes of the tensors that the site's module owns."""
    window = decision.site.geometry
    if decision.site.operator != "conv":
        return {}
    shapes: dict[str, tuple[int, ...]] = {
        "weight": (window.out_channels, window.in_channels // window.groups, *window.kernel)
    }
    if window.bias:
        shapes["bias"] = (window.out_channels,)
    return shapes


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Put the path before each name; it is empty where the model itself is the site."""
    return ((f"{prefix}.{name}" if prefix else name, tensor) for name, tensor in tensors.items())


def _common_tensor(state: Mapping[str, Tensor]) -> Tensor:
    """Give a tensor whose dtype and device new weights take where the site had none: the first floating one."""
    return next((t for t in state.values() if t.is_floating_point()), torch.empty(0))
