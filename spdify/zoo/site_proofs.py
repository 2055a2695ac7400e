"""Proofs of single sites, each made once in a whole sweep.

What a proof finds depends on the rewrite with its parameters, the window and the module's own settings, and on nothing
else: weights and inputs are drawn from a seed. Models of a family have many such sites in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.graph.structure import copy_with
from spdify.verification.site_proof import original_of, site_error, what_is_proved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spdify.records import Decision, Plan

_PLAIN = (int, float, str, bool, tuple, type(None))


class SiteProofs:
    """Errors of sites by what they depend on.

    Attributes:
        new: Those that were not known before.
    """

    def __init__(self, known: Mapping[str, float], *, seed: int) -> None:
        """Take what is known; it is not changed."""
        self.new: dict[str, float] = {}
        self._known = known
        self._seed = seed

    def errors(self, model: nn.Module, plan: Plan) -> dict[str, float]:
        """Give the error of every applied site, by its name; the model may lie on the meta device."""
        found = {}
        for decision in plan.applied:
            module = original_of(model, decision)
            key = proof_key(module, decision, seed=self._seed)
            error = self._known.get(key, self.new.get(key))
            if error is None:
                error = self.new[key] = site_error(with_values(module), decision, seed=self._seed)
            found[decision.site.name] = error
        return found


def proof_key(module: nn.Module, decision: Decision, *, seed: int) -> str:
    """Put everything that the proof of a site depends on into words."""
    kinds = [f"{type(m).__module__}.{type(m).__qualname__} {_settings(m)}" for m in module.modules()]
    return f"{seed} {what_is_proved(decision)} {kinds}"


def _settings(module: nn.Module) -> dict[str, Any]:
    own = {k: v for k, v in vars(module).items() if not k.startswith("_") and isinstance(v, _PLAIN) and k != "training"}
    return own | {name: tuple(b.shape) for name, b in module.named_buffers(recurse=False)}


def with_values(module: nn.Module) -> nn.Module:
    """Copy a module to the CPU, with random values where it has none (meta device); real ones are kept."""
    generator = torch.Generator().manual_seed(0)

    def value(tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor.clone()
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return empty.uniform_(0.1, 1.0, generator=generator) if empty.is_floating_point() else empty.zero_()

    copied = copy_with(module, value)
    # timm's way to have constants computed again.
    initialise: Callable[[], None] | None = getattr(copied, "init_non_persistent_buffers", None)
    if initialise is not None:
        initialise()
    return copied
