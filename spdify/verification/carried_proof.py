"""Proof of what follows a change of channels: each module outside the sites, before and after, in float64.

A module gets random weights; its changed copy gets them as the plan says, and an input in which the old channels are
those of the original's input and the others are random. What reads them must give the same; what carries them on must
have the same in its old channels, in train mode too. 1e-10 is allowed, as of sites.
"""

from __future__ import annotations

import copy
import math
import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.blocks import SPDBatchNorm2d
from spdify.engine.adjusting import adjust
from spdify.engine.carrying import first_copies, old_channels, origins
from spdify.graph.carriers import DROPOUTS
from spdify.records import Check
from spdify.verification.compare import relative_error
from spdify.verification.site_proof import BATCH, SITE_TOLERANCE

if TYPE_CHECKING:
    from torch import Tensor

    from spdify.records import Adjustment, Layout, Plan


def prove_carried(model: nn.Module, plan: Plan, *, seed: int) -> tuple[Check, ...]:
    """Prove every module that follows a change of channels and is no site.

    Args:
        model: The original; not changed.
        plan: Its plan.
        seed: Of weights and inputs.

    Returns:
        One check per module, `carried <path>`.
    """
    sites = {d.site.path for d in plan.applied}
    checks = []
    for adjustment in plan.adjustments:
        is_norm = _is_shared_norm(adjustment)
        if adjustment.path in sites or not (adjustment.tensors or adjustment.numbers or is_norm):
            continue
        name = f"carried {adjustment.path}"
        if not adjustment.numbers and adjustment.takes is None:
            detail = "a tensor that its module's own code reads: the whole model alone shows it"
            checks.append(Check(name=name, outcome="not run", detail=detail))
            continue
        error = carried_error(model.get_submodule(adjustment.path), adjustment, seed=seed)
        outcome = "passed" if error <= SITE_TOLERANCE else "failed"
        detail = "eval mode alone: its statistics count more positions" if is_norm else ""
        checks.append(Check(name=name, outcome=outcome, value=error, tolerance=SITE_TOLERANCE, detail=detail))  # type: ignore[arg-type]
    return tuple(checks)


def carried_error(module: nn.Module, adjustment: Adjustment, *, seed: int) -> float:
    """Give the largest relative error of a module's output, in train and in eval mode; of a shared norm, in eval mode.

    Args:
        module: As it is in the original; not changed.
        adjustment: What becomes of it.
        seed: Of weights and inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    before = copy.deepcopy(module).cpu().double()
    with torch.no_grad():
        for tensor in (*before.parameters(), *before.buffers()):
            if tensor.is_floating_point():  # positive, as variances are
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
    holder = nn.ModuleDict({"module": copy.deepcopy(before)})
    adjust(holder, adjustment.model_copy(update={"path": "module", "aliases": ()}))
    x = torch.randn(_input_shape(before, adjustment), generator=generator, dtype=torch.float64)
    y = x if adjustment.takes is None else _grown(x, adjustment.takes, generator)
    worst = 0.0
    for training in (False,) if _is_shared_norm(adjustment) else (True, False):
        with torch.no_grad():
            expected = before.train(training)(x)
            actual = holder["module"].train(training)(y)
        worst = max(worst, _error(expected, actual, adjustment.gives))
    return worst


def without_dropout(model: nn.Module, plan: Plan) -> tuple[str, ...]:
    """Switch off, in place, dropout over channels that became more: it would draw other random numbers.

    Returns:
        Paths of the layers that were switched off.
    """
    found = []
    for adjustment in plan.adjustments:
        module = model.get_submodule(adjustment.path)
        if isinstance(module, DROPOUTS) and module.p > 0:
            module.p = 0.0
            found.append(adjustment.path)
    return tuple(found)


def hold_shared_norms(model: nn.Module, plan: Plan) -> tuple[str, ...]:
    """Put norms that phases share into eval mode, in place: their statistics count more positions than before.

    Args:
        model: The original or the converted network, in train mode.
        plan: Its plan.

    Returns:
        Paths of these norms.
    """
    paths = tuple(a.path for a in plan.adjustments if _is_shared_norm(a))
    for path in paths:
        model.get_submodule(path).eval()
    return paths


def _is_shared_norm(adjustment: Adjustment) -> bool:
    """Whether a norm becomes one that the phases of a channel share."""
    return adjustment.block == SPDBatchNorm2d.__name__


def _error(expected: Tensor, actual: Tensor, gives: Layout | None) -> float:
    if gives is None:
        return relative_error(expected, actual)
    return relative_error(expected, old_channels(actual, gives)) if actual.shape[1] == gives.new else math.inf


def _input_shape(module: nn.Module, adjustment: Adjustment) -> tuple[int, ...]:
    """Give an input that a module takes: rows, or a map larger than its window."""
    if isinstance(module, (nn.Linear, nn.BatchNorm1d)):
        count = adjustment.takes.old if adjustment.takes else getattr(module, "in_features", 0)
        return (BATCH + 1, count)
    window = getattr(module, "kernel_size", (1, 1))
    reach = getattr(module, "dilation", (1,) * len(window)) if isinstance(window, tuple) else (1, 1)
    sizes = window if isinstance(window, tuple) else (window, window)
    channels = adjustment.takes.old if adjustment.takes else getattr(module, "in_channels", 0)
    named = re.search(r"(\d)d", type(module).__name__)
    dims = int(named[1]) if named else len(sizes)
    spatial = [k * d + 4 + i for i, (k, d) in enumerate(zip(sizes * dims, tuple(reach) * dims, strict=False))][:dims]
    return (BATCH, channels, *spatial)


def _grown(x: Tensor, takes: Layout, generator: torch.Generator) -> Tensor:
    """Give random new channels in which the old ones are those of `x`."""
    new = torch.randn((x.shape[0], takes.new, *x.shape[2:]), generator=generator, dtype=x.dtype)
    if takes.how == "select":
        return new.index_copy(1, torch.tensor(first_copies(takes)), x)
    index = torch.tensor(origins(takes))
    return new + (x - old_channels(new, takes)).index_select(1, index)
