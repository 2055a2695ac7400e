"""What rounding alone does to a network, and how far two sets of buffers are apart."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from spdify.verification.compare import relative_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A steep network (norms over two positions, say) may turn one rounding into more than that. Where the original itself,
#: with inputs and weights off in the last digit, moves nearly as far, it is rounding; above 1e-5 nothing excuses it.
NUDGE, ROUNDING_SHARE, STEEP_TOLERANCE = 1e-15, 10.0, 1e-5
#: Share of itself that rounding moves an output which is nothing but rounding: a norm of maps that are constant, say.
NOISE = 1e-2


def steep(share: float) -> str:
    """Say why an error is allowed to be as large as `share`."""
    return f"rounding alone moves the original by {share / ROUNDING_SHARE:.0e}: inputs and weights off by 1e-15 show it"


def noise(share: float) -> str:
    """Say why an output that rounding moves by as much as `share` of itself is not compared."""
    return (
        f"the original's output is nothing but rounding: inputs and weights off by 1e-15 move it by {share:.0e} of it"
    )


def nudged(values: Any, *, seed: int) -> Any:  # noqa: ANN401 - tensors, however nested
    """Change every floating-point tensor by about `NUDGE` of itself."""
    generator = torch.Generator().manual_seed(seed)

    def nudge(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        return x * (1 + NUDGE * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x))

    return tree_map_only(Tensor, nudge, values)


@contextmanager
def nudged_weights(model: nn.Module, *, seed: int) -> Iterator[None]:
    """Change all parameters for a while."""
    kept = {name: p.clone() for name, p in model.named_parameters()}
    for name, value in nudged(kept, seed=seed).items():
        model.get_parameter(name).copy_(value)
    try:
        yield
    finally:
        for name, value in kept.items():
            model.get_parameter(name).copy_(value)


def buffer_error(kept: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Give the largest relative error of any buffer."""
    one = torch.ones(1)  # goes with each buffer: integer ones alone have no figure, they are equal or not
    return max(relative_error((one, b), (one, theirs[key]), floor=_deviation(key, kept)) for key, b in kept.items())


def _deviation(key: str, buffers: Mapping[str, Tensor]) -> float:
    """Give the deviation beside a running mean: a mean that is zero but for rounding has no scale of its own."""
    variance = buffers.get(key.removesuffix("mean") + "var") if key.endswith("running_mean") else None
    return float(variance.max().sqrt()) if variance is not None else 0.0
