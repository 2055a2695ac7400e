"""Weights under which a comparison can see every part of a network.

A network fresh from timm has zero-initialised last batch norms and layer scales of 1e-6: its residual branches put
out nothing, and comparing two such networks says nothing about what is in the branches. So every norm, gain, layer
scale and constant parameter is drawn at random before networks are compared.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPREAD = 0.25  # of the factors put on running statistics
SMALLEST_SHARE = 0.1  # of the mean variance of a norm, that each of its channels gets at least


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
    """Let running statistics become exactly those of the next batch (momentum 1): depth neither blows up nor dies out.

    Frozen norms, which have statistics and no momentum, stay.
    """
    norms: list[Any] = [
        m
        for model in models
        for m in model.modules()
        if getattr(m, "running_mean", None) is not None and hasattr(m, "momentum")
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def settle_statistics(model: nn.Module, run: Callable[[], object], *, seed: int) -> None:
    """Set running statistics, in place, near those of what reaches each norm in eval mode, off by some 25 %.

    Norm by norm in the course of one run: were all moved at once, each norm would meet what the shifts before it made,
    and the growth of that through a deep network would drown the comparison in rounding (5·10⁴ times in levit_128s).

    Args:
        model: The network; left in eval mode.
        run: Runs it.
        seed: Of the shifts.
    """
    generator = torch.Generator().manual_seed(seed)

    def around(like: Tensor) -> Tensor:
        return SPREAD * torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    def settle(norm: Any, args: tuple[Any, ...]) -> None:  # noqa: ANN401 - any norm with statistics
        x, mean, variance = args[0], norm.running_mean, norm.running_var
        if x.dim() < 2 or x.shape[1] != mean.numel():  # noqa: PLR2004 - channels are the second axis
            return
        by_channel = x.transpose(0, 1).flatten(1)
        found = by_channel.var(dim=1, unbiased=False)
        # A channel that hardly varies within a batch of two would blow up whatever reaches it next.
        found = found.clamp(min=SMALLEST_SHARE * found.mean().item() + 1e-6)
        mean.copy_(by_channel.mean(dim=1) + found.sqrt() * around(mean))
        variance.copy_(found * torch.exp(around(variance)))

    handles = [
        module.register_forward_pre_hook(settle)
        for module in model.eval().modules()
        if all(isinstance(getattr(module, name, None), Tensor) for name in ("running_mean", "running_var"))
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
