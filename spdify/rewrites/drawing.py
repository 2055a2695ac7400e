"""Weights as a fresh block draws them, the same for the same seed: for what starts anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def drawn_weights(make_block: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    """Give the state dict of a block as it is when it was just made.

    The caller's random numbers, default device and default dtype neither matter nor change.

    Args:
        make_block: Makes the block, drawing its weights.
        seed: Of the random numbers.

    Returns:
        By name, detached, in float32 on the CPU.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
            state = make_block().state_dict()
    finally:
        torch.set_default_dtype(before)
    return {name: tensor.detach() for name, tensor in state.items()}


def drawn_like(weight: Tensor, seed: int) -> Tensor:
    """Draw a weight as `torch.nn.Conv2d` and `torch.nn.Linear` draw theirs, in the shape, dtype and place of another.

    Args:
        weight: (out, in, …); on the meta device nothing is drawn.
        seed: Of a generator of its own.
    """
    if weight.is_meta:
        return weight
    drawn = torch.empty(weight.shape, dtype=torch.float64, device="cpu")
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed))
    return drawn.to(weight)
