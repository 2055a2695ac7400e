"""Proof that a network in its deployed form computes what the converted one does, whatever its weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spdify.graph.structure import detached_copy
from spdify.records import Check
from spdify.verification.compare import carries_signal, relative_error, tensors_of
from spdify.verification.islands import find_islands
from spdify.verification.model_proof import ISLAND_TOLERANCE, MODEL_TOLERANCE
from spdify.verification.randomised import randomise, settle_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

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
        Largest error of any output, relative to its largest magnitude; not run where the network does not run in
        float64, or its outputs say nothing.
    """
    args, kwargs = make_inputs(torch.float64)
    try:
        source = trained_like(model, make_inputs, seed=seed, dtype=torch.float64)
        with torch.no_grad():
            expected = source(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError) as fault:
        return Check(name=FORM_CHECK, outcome="not run", detail=f"the network does not run in float64: {fault}")
    with torch.no_grad():
        found = make_form(source)(*args, **kwargs)
    if not any(carries_signal(y) for y in tensors_of(expected)):
        return Check(name=FORM_CHECK, outcome="not run", detail="its outputs say nothing")
    islands = find_islands(source, (args, kwargs))
    tolerance = ISLAND_TOLERANCE if islands else MODEL_TOLERANCE
    error = relative_error(expected, found)
    return Check(
        name=FORM_CHECK, outcome="passed" if error <= tolerance else "failed", value=error, tolerance=tolerance,
        detail=f"{', '.join(islands[:3])} computes in float32" if islands else "",
    )  # fmt: skip


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
