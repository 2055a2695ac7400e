"""Cost of a model and of its sites, before and after."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spdify.graph.parts import opened_paths, shown_parts
from spdify.records import Measure, Report, SiteCost
from spdify.reporting.taps import ReadPositions, kernels_of

if TYPE_CHECKING:
    from spdify.graph.census import Census
    from spdify.records import Check, Plan, Site


def measure(model: nn.Module, census: Census) -> Measure:
    """Give the cost of a whole model.

    Args:
        model: The model.
        census: Of one forward pass at batch 1 in eval mode.
    """
    return Measure(
        params=sum(p.numel() for p in model.parameters()),
        macs=census.total_macs,
        activation_bytes=sum(census.activation_bytes.values()),
        weight_bytes=_state_bytes(model),
    )


def _state_bytes(model: nn.Module) -> int:
    """Bytes of all distinct tensors of the state dict, as a weights file holds them."""
    tensors = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _part(model: nn.Module, census: Census, path: str) -> Measure:
    """Give the cost of the module at `path` with everything in it."""

    def within(by_owner: dict[str, int]) -> int:
        return sum(n for owner, n in by_owner.items() if owner == path or owner.startswith(f"{path}."))

    module = model.get_submodule(path)
    return Measure(
        params=sum(p.numel() for p in module.parameters()),
        macs=within(census.macs),
        activation_bytes=within(census.activation_bytes),
        weight_bytes=_state_bytes(module),
    )


def _site_part(model: nn.Module, census: Census, site: Site) -> Measure:
    """Give the cost of a site before: of a functional call, which has no weights of its own, its operator's.

    Where a block is inserted there was nothing.
    """
    if site.inserted:
        return Measure(params=0, macs=0, activation_bytes=0, weight_bytes=0)
    if not site.operation:
        return _part(model, census, site.path)
    size = next((p.element_size() for p in model.parameters()), torch.get_default_dtype().itemsize)
    made = 0 if site.operator == "slice" else sum(math.prod(call.output) for call in site.calls)
    return Measure(params=0, macs=site.macs, activation_bytes=made * size, weight_bytes=0)


def make_report(  # noqa: PLR0913 - the two models with their censuses, and what was done
    name: str,
    model: nn.Module,
    before: Census,
    converted: nn.Module,
    after: Census,
    plan: Plan,
    *,
    checks: tuple[Check, ...] = (),
    proof: str = "none",
    seconds: float | None = None,
    peak_memory_bytes: int | None = None,
) -> Report:
    """Compare a model with its conversion, in total, part by part and at every site that was changed."""
    positions = ReadPositions()
    sites = tuple(
        SiteCost(
            name=d.site.name,
            before=_site_part(model, before, d.site),
            after=_part(converted, after, d.site.block_path),
            positions_read=positions.share(d) if d.site.kind == "downsampling" else None,
        )
        for d in plan.applied
    )
    opened = opened_paths(model, before)
    return Report(
        model=name,
        rulebook=plan.rulebook,
        before=measure(model, before),
        after=measure(converted, after),
        sites=sites,
        decisions=plan.decisions,
        adjustments=plan.adjustments,
        left_alone=plan.left_alone,
        budget=plan.budget,
        checks=checks,
        proof=proof,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        parts_before=shown_parts(model, before, opened),
        parts_after=shown_parts(converted, after, opened),
        kernels=kernels_of(model, converted, plan),
    )


def compare_models(name: str, model: nn.Module, before: Census, other: nn.Module, after: Census) -> Report:
    """Compare any two models in total; no plan leads from one to the other."""
    return Report(
        model=name,
        rulebook="none",
        before=measure(model, before),
        after=measure(other, after),
        sites=(),
        decisions=(),
        parts_before=shown_parts(model, before),
        parts_after=shown_parts(other, after),
    )
