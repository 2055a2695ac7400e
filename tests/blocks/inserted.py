"""What the tests of blocks that come beside a map share: random weights, layers by definition, whether all learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

#: An odd, unequal size and more than one image.
SHAPE = (3, 16, 7, 5)


def roused(block: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give a block, in float64, random weights and statistics throughout."""
    generator = torch.Generator().manual_seed(seed)
    block = block.double()
    with torch.no_grad():
        for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / 2
                tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return block


def convolved(x: Tensor, weight: Tensor, rate: int = 1) -> Tensor:
    """Convolve so that the size stays, tap by tap: shifted copies of the map, weighed and added."""
    _, _, height, width = x.shape
    reach = rate * (weight.shape[-1] // 2)
    padded = F.pad(x, (reach,) * 4)
    y = torch.zeros(len(x), len(weight), height, width, dtype=x.dtype)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            shifted = padded[:, :, rate * i : rate * i + height, rate * j : rate * j + width]
            y = y + torch.einsum("oc,nchw->nohw", weight[:, :, i, j], shifted)
    return y


def normed(x: Tensor, state: Mapping[str, Tensor], name: str, *, training: bool) -> Tensor:
    """Normalise channels by their own statistics, or by running ones."""
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        mean, variance = x.mean((0, 2, 3)), ((x - x.mean((0, 2, 3), keepdim=True)) ** 2).mean((0, 2, 3))
    scale = state[f"{name}.weight"] / (variance + 1e-5).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def silent_after_a_step(block: nn.Module, x: Tensor) -> list[str]:
    """Name the parameters, but for biases, whose gradient is zero everywhere once a block has taken a step."""
    optimizer = torch.optim.SGD(block.parameters(), lr=0.5)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    for _ in range(2):
        optimizer.zero_grad()
        (block(x) * weights).sum().backward()
        found = [
            name
            for name, p in block.named_parameters()
            if not name.endswith("bias") and (p.grad is None or not p.grad.any())
        ]
        optimizer.step()
    return found
