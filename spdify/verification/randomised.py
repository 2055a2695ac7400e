"""Weights under which a comparison can see every part of a network.

A network fresh from timm has zero-initialised last batch norms and layer scales of 1e-6: its residual branches put out nothing,
and comparing two such networks says nothing about what is in the branches. So every norm, gain, layer scale and
constant parameter is drawn at random before networks are compared.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

SPREAD = 0.25  # of the factors put on running statistics


def randomise(model: nn.Module, *, seed: int) -> None:
    """Draw, in place, every parameter that is a vector, a scalar or constant; matrices and kernels that vary stay.

    Args:
        model: Its floating-point parameters are changed.
        seed: Of the generator; the global one is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and (parameter.dim() <= 1 or _is_constant(parameter)):
                parameter.copy_(_draw(name, parameter, generator))


def _is_constant(parameter: nn.Parameter) -> bool:
    return parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())


def _draw(name: str, parameter: nn.Parameter, generator: torch.Generator) -> torch.Tensor:
    """Draw small values for biases, factors around 1 for gains, and a fan-in scaled matrix for constants."""
    normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    if parameter.dim() > 1 and parameter.numel() > max(parameter.shape):
        return normal / math.sqrt(parameter[0].numel())
    if name.rpartition(".")[2].endswith("bias"):
        return 0.2 * normal
    return 0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)


@contextmanager
def whole_batch_statistics(*models: nn.Module) -> Iterator[None]:
    """Let running statistics become exactly those of the next batch (momentum 1), so that depth neither blows up nor dies out."""
    norms = [m for model in models for m in model.modules() if getattr(m, "running_mean", None) is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def jitter_statistics(model: nn.Module, *, seed: int) -> None:
    """Move running statistics, in place, off those of the batch they were taken from."""
    generator = torch.Generator().manual_seed(seed)

    def around(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    with torch.no_grad():
        for module in model.modules():
            mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
                mean += SPREAD * variance.sqrt() * around(mean)
                variance *= torch.exp(SPREAD * around(variance))
                # A channel that a batch of two left without variance would otherwise blow up.
                variance.clamp_(min=1e-3)
