"""Proof that a network in its deployed form computes what the converted one does, whatever its weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from spdify.graph.structure import detached_copy
from spdify.records import Check
from spdify.verification.compare import carries_signal, relative_error, tensors_of
from spdify.verification.comparison import ISLAND_TOLERANCE, MODEL_TOLERANCE
from spdify.verification.inside import compare_inside, find_watched
from spdify.verification.islands import find_islands
from spdify.verification.randomised import randomise, settle_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.verification.inside import Agreement

    MakeInputs = Callable[[torch.dtype], tuple[tuple[Tensor, ...], dict[str, Tensor]]]

FORM_CHECK = "form, trained weights"
MOVED = 0.1  # of a tensor's root mean square


def prove_form(
    model: nn.Module, make_form: Callable[[nn.Module], nn.Module], make_inputs: MakeInputs, *, seed: int
) -> Check:
    """Compare a converted network with its deployed form, in float64, on weights that training may have left.

    Every weight is moved, also those that conversion has put at zero: so nothing folds back, or may rely on zeros.

    Args:
        model: The converted network; not changed.
        make_form: Gives the deployed form of a network.
        make_inputs: Gives positional and named inputs, floating ones in the dtype asked for.
        seed: Of the weights.

    Returns:
        Largest error of any output, relative to its largest magnitude; of a network that chooses, where its outputs
        differ or say nothing, of all that is compared inside (`spdify.verification.inside`). Not run where the network
        does not run in float64, or nothing can be compared.
    """
    args, kwargs = make_inputs(torch.float64)
    try:
        source = trained_like(model, make_inputs, seed=seed, dtype=torch.float64)
        with torch.no_grad():
            expected = source(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError) as fault:
        return Check(name=FORM_CHECK, outcome="not run", detail=f"the network does not run in float64: {fault}")
    formed = make_form(source)
    with torch.no_grad():
        found = formed(*args, **kwargs)
    islands = find_islands(source, (args, kwargs))
    tolerance = ISLAND_TOLERANCE if islands else MODEL_TOLERANCE
    detail = f"{', '.join(islands[:3])} computes in float32" if islands else ""
    error = relative_error(expected, found)
    silent = not any(carries_signal(y) for y in tensors_of(expected))
    if silent or error > tolerance:
        inside = _inside(source, formed, lambda one: one(*args, **kwargs))
        if inside is not None and inside.complete:
            error, detail = inside.error, "; ".join(filter(None, (inside.detail, detail)))
        elif silent or (inside is not None and inside.error <= tolerance):
            why = inside.detail if inside is not None else "its outputs say nothing"
            return Check(name=FORM_CHECK, outcome="not run", detail=why)
    outcome: Literal["passed", "failed"] = "passed" if error <= tolerance else "failed"
    return Check(name=FORM_CHECK, outcome=outcome, value=error, tolerance=tolerance, detail=detail)


def _inside(source: nn.Module, formed: nn.Module, run: Callable[[nn.Module], object]) -> Agreement | None:
    """Compare inside where something is chosen, or the outputs say nothing; None where that is of no use."""
    modules = dict(formed.named_modules())
    replaced = [path for path, module in source.named_modules() if type(modules.get(path)) is not type(module)]
    watched, chooses = find_watched(source, run, replaced)
    if not (watched and chooses):
        return None
    # What lies in a block is replaced with it.
    sites = [path for path in replaced if path.rpartition(".")[0] not in replaced]
    return compare_inside((source, formed), run, watched, replaced, covering=sites)


def trained_like(
    model: nn.Module, make_inputs: MakeInputs, *, seed: int, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Copy a network, with norms and gains drawn at random and every other weight moved a little.

    Args:
        model: Not changed.
        make_inputs: Gives positional and named inputs, floating ones in the dtype asked for.
        seed: Of the weights.
        dtype: Of the copy.
    """
    twin = detached_copy(model).cpu().to(dtype).eval()
    randomise(twin, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.is_floating_point() and parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
                parameter.add_(MOVED * parameter.square().mean().sqrt() * noise)
    args, kwargs = make_inputs(dtype)
    settle_statistics(twin, lambda: twin(*args, **kwargs), seed=seed + 1)
    return twin
