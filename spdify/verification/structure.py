"""Checks of what a converted model is made of: nothing left to convert, everything else as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spdify.engine.carrying import before_changes, changed_tensors
from spdify.records import Check

if TYPE_CHECKING:
    from spdify.graph.sites import Survey
    from spdify.records import Plan

SHOWN = 5


def eyes_agree(name: str, seen: Survey) -> Check:
    """Trace and census must agree."""
    if seen.disagreements:
        return Check(name=name, outcome="failed", detail="; ".join(seen.disagreements[:5]))
    detail = "sites seen by both eyes alike"
    if seen.one_eye:
        more = f" and {len(seen.one_eye) - SHOWN} more" if len(seen.one_eye) > SHOWN else ""
        places = ", ".join(path or "the model itself" for path in seen.one_eye[:SHOWN])
        detail += f"; torch.fx cannot follow the own code of {places}{more}: the census alone looks there"
    if seen.eval_only:
        detail += "; in eval mode only"
    count = sum(site.kind == "downsampling" for site in seen.sites)
    return Check(name=name, outcome="passed", value=float(count), detail=detail)


def nothing_left(plan: Plan, before: Survey, after: Survey) -> Check:
    """Nothing may downsample afterwards but what the plan left; so converting again finds nothing."""
    name = "nothing else left"
    allowed = names_left(plan, before)
    left = [site.name for site in after.sites if site.name not in allowed]
    lost = allowed - {site.name for site in after.sites}
    if left or lost:
        words = [f"still there: {', '.join(left)}"] if left else []
        words += [f"gone: {', '.join(sorted(lost))}"] if lost else []
        return Check(name=name, outcome="failed", detail="; ".join(words))
    return Check(name=name, outcome="passed", value=float(len(allowed)), detail="sites left, all kept or refused")


def names_left(plan: Plan, before: Survey) -> set[str]:
    """Name the sites that downsample before and are not replaced; rulebooks about other things leave them all."""
    applied = {d.site.name for d in plan.applied}
    return {site.name for site in before.sites if site.kind == "downsampling"} - applied


def untouched_tensors(model: nn.Module, converted: nn.Module, plan: Plan) -> Check:
    """Every tensor outside the sites keeps its name, dtype and values, and its shape where no channels reach it.

    What has more channels holds the old values where it is read as before.
    """
    prefixes = tuple(f"{path}." for d in plan.applied for path in d.site.block_paths)
    old, new = (
        {key: value for key, value in one.state_dict().items() if not key.startswith(prefixes)}
        for one in (model, converted)
    )
    changes, new = changed_tensors(plan.adjustments), before_changes(new, plan)
    if plan.init == "random":  # what reads more channels starts anew
        started = {key for key, found in changes.items() if any(change.change == "read" for change in found)}
        old, new = ({key: value for key, value in one.items() if key not in started} for one in (old, new))
    common = old.keys() & new.keys()
    changed = sorted(old.keys() ^ new.keys() | {key for key in common if not _is_same(old[key], new[key])})
    if changed:
        return Check(name="untouched names", outcome="failed", detail=", ".join(changed[:5]))
    detail = "tensors keep name, shape and values"
    if followed := len(changes.keys() & old.keys()):
        detail += f"; {followed} of them with more channels, the old values among them"
    return Check(name="untouched names", outcome="passed", value=float(len(old)), detail=detail)


def _is_same(a: object, b: object) -> bool:
    """Compare two entries of state dicts; extra state (no tensor) only by its type."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_meta or b.is_meta:
        return a.is_meta == b.is_meta
    return torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
