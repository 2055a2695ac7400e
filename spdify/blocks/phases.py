"""How the taps of a strided window fall onto the phases of space-to-depth.

Take one axis with stride s. Space-to-depth splits it into s phases: phase r holds the positions congruent to r modulo
s. Tap u of the window that belongs to output i reads position s·i + a with a = d·u - p. Write a = s·q + r with
0 ≤ r < s (floor division): the tap is tap q of a window of stride 1 over phase r. Over all taps q runs from q_min to
q_max, so the new window has K = q_max - q_min + 1 taps and -q_min blocks of padding below.

The same window is that of a strided convolution with kernel K·s, stride s, and the padding, in input positions, that
`Phases.padding` gives: (-q_min·s, e + q_min·s + K·s), where floor((n + e) / s) + 1 is the operator's output size for
n input positions. Source: arXiv 2208.03641, section 3 (space-to-depth); the algebra is worked out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def per_axis(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Give one entry per axis, as `torch.nn` reads its arguments.

    Raises:
        ValueError: As many entries as there are axes are needed.
    """
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims:
        msg = f"expected one number or {dims}, one per spatial axis, got {values}"
        raise ValueError(msg)
    return values


def check_pool_padding(kernel: Sequence[int], padding: Sequence[int]) -> None:
    """Raise `ValueError` where a window could lie wholly in the padding, as the pools of `torch.nn` do."""
    if any(p < 0 or 2 * p > k for k, p in zip(kernel, padding, strict=True)):
        msg = f"padding must be between 0 and half the kernel {tuple(kernel)}, got {tuple(padding)}"
        raise ValueError(msg)


@dataclass(frozen=True)
class Phases:
    """One axis of a strided window, seen after space-to-depth.

    Attributes:
        scale: Stride of the window, number of phases.
        kernel: Taps of the stride-1 window over the phases.
        padding: Zero positions below and above the axis, in input positions; above may be negative (a crop).
        taps: For each tap of the strided window, its tap and its phase in the new one.
    """

    scale: int
    kernel: int
    padding: tuple[int, int]
    taps: tuple[tuple[int, int], ...]


def split_axis(  # noqa: PLR0913 - the six numbers that define a strided window
    kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool = False, odd: bool = False
) -> Phases:
    """Split one axis of a strided window into phases.

    Args:
        kernel: Taps.
        stride: Stride in positions, also 1.
        padding: Positions of padding on either side.
        dilation: Distance between taps in positions.
        ceil_mode: Round the output size up, as pools of `torch.nn` do.
        odd: Embed the new window into the smallest centred odd one of at least 3 taps; not along an axis of stride 1,
            whose window is the old one.
    """
    offsets = [divmod(dilation * tap - padding, stride) for tap in range(kernel)]
    first, last = offsets[0][0], offsets[-1][0]
    if odd and stride > 1:
        reach = max(1, -first, last)
        first, last = -reach, reach
    size = last - first + 1
    excess = 2 * padding - dilation * (kernel - 1) - 1
    if ceil_mode:
        # Rounded up, but the last window starts inside the input or the low padding.
        excess = min(excess, padding - stride) + stride - 1
    low = -first * stride
    return Phases(
        scale=stride,
        kernel=size,
        padding=(low, excess - low + size * stride),
        taps=tuple((q - first, r) for q, r in offsets),
    )


def scatter_taps(weight: Tensor, axes: Sequence[Phases]) -> Tensor:
    """Move each tap of a strided convolution's weight to its phase; all other entries are zero.

    Args:
        weight: (O, I, *k), the weight of the strided convolution, I per group.
        axes: One entry per spatial axis.

    Returns:
        (O, I·s₁·s₂…, *K); input channels in the order of `torch.nn.PixelUnshuffle` (channel-major), the only one in
        which groups stay contiguous. Differentiable in `weight`.
    """
    scales = [axis.scale for axis in axes]
    kernels = [axis.kernel for axis in axes]
    out = weight.new_zeros(weight.shape[0], weight.shape[1], *scales, *kernels)
    phase: list[Tensor] = []
    tap: list[Tensor] = []
    for i, axis in enumerate(axes):
        view = [1] * len(axes)
        view[i] = -1
        taps = torch.tensor(axis.taps, device=weight.device if weight.device.type != "meta" else "cpu")
        tap.append(taps[:, 0].view(view))
        phase.append(taps[:, 1].view(view))
    index: tuple[slice | Tensor, ...] = (slice(None), slice(None), *phase, *tap)
    out[index] = weight
    return out.flatten(1, 1 + len(axes))
