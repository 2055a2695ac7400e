"""Calibration without labels: approximate pools fitted to the originals, statistics of batch norms taken anew."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spdify.blocks import SPDConv
from spdify.blocks.spd_conv import spd_conv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch.utils.hooks import RemovableHandle

RIDGE = 1e-6
"""Added to the diagonal of the normal equations, relative to its mean: taps that always agree share their weight."""


def fit_pool(network: nn.Module, reference: nn.Module, path: str, batches: Callable[[], Iterable[Tensor]]) -> None:
    """Fit the convolution that stands for a pool to what the pool gives, in place.

    Each channel on its own, by least squares: minimise |X w - y|² over the positions of all images, where X holds the
    inputs under the block's window in `network` (as fitted so far), y what the pool gives in `reference`, and w the
    channel's taps of its own channel; taps of other channels become zero.

    Args:
        network: Holds an `SPDConv` over as many channels in as out at `path`.
        reference: Holds what computes the pool there.
        path: Of both.
        batches: Gives the images, the same each time.
    """
    block = network.get_submodule(path)
    assert isinstance(block, SPDConv)  # noqa: S101 - see above
    channels = block.in_channels
    taps = math.prod(block.scale) * math.prod(block.kernel_size)
    gram = torch.zeros(channels, taps, taps, dtype=torch.float64)
    right = torch.zeros(channels, taps, dtype=torch.float64)
    # One output per tap, channel by channel: the block's own code says what lies under its window.
    picks = torch.eye(taps).reshape(taps, math.prod(block.scale), *block.kernel_size)
    picks = picks.repeat(channels, *[1] * (picks.ndim - 1))
    for images in batches():
        (x,), y = _seen(network, path, images)[0], _seen(reference, path, images)[1]
        under = spd_conv(
            x, picks.to(x), None, block.scale, block.padding, channels, block.form, block.margin, block.padding_mode
        )
        features = under.reshape(len(under), channels, taps, -1).double()  # (N, C, taps, positions)
        wanted = y.flatten(2).double()  # (N, C, positions)
        gram += torch.einsum("nctp,ncup->ctu", features, features)
        right += torch.einsum("nctp,ncp->ct", features, wanted)
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    gram += ridge[:, None, None] * torch.eye(taps, dtype=torch.float64)
    solved = torch.linalg.solve(gram, right)
    weight = torch.zeros_like(block.weight)
    own = torch.arange(channels)
    phases = math.prod(block.scale)
    by_channel = weight.view(channels, channels, phases, *block.kernel_size)
    by_channel[own, own] = solved.reshape(channels, phases, *block.kernel_size).to(weight)
    with torch.no_grad():
        block.weight.copy_(weight)


@torch.no_grad()
def pool_error(network: nn.Module, reference: nn.Module, path: str, batches: Callable[[], Iterable[Tensor]]) -> float:
    """Give how far a block's output is from the pool's: root of the summed squares, relative."""
    off = total = 0.0
    for images in batches():
        found, wanted = (_seen(model, path, images)[1].double() for model in (network, reference))
        off += (found - wanted).square().sum().item()
        total += wanted.square().sum().item()
    return math.sqrt(off / total) if total else math.sqrt(off)


@torch.no_grad()
def output_error(network: nn.Module, reference: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> float:
    """Give how far the outputs are from the reference's: root of the summed squares, relative."""
    off = total = 0.0
    for images in batches():
        found, wanted = network(images).double(), reference(images).double()
        off += (found - wanted).square().sum().item()
        total += wanted.square().sum().item()
    return math.sqrt(off / total) if total else math.sqrt(off)


@torch.no_grad()
def calibrate_norms(network: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> int:
    """Take the running statistics of all batch norms anew, as averages over all batches, in place.

    Only batch norms run in train mode meanwhile: dropout stays off.

    Returns:
        Number of batch norms.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]  # noqa: SLF001
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    try:
        for images in batches():
            network(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    return len(norms)


class _Reached(Exception):  # noqa: N818 - no fault
    """Ends a forward pass where all that is wanted has been seen."""


@torch.no_grad()
def _seen(model: nn.Module, path: str, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Run a model up to a module; give what goes in there and what comes out."""
    seen: list[tuple[tuple[Tensor, ...], Tensor]] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs, output))
        raise _Reached

    with _hooked(model.get_submodule(path), look):
        try:
            model(images)
        except _Reached:
            return seen[0]
    msg = f"the module {path} was not called"
    raise RuntimeError(msg)


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle: RemovableHandle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
