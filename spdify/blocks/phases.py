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

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Edge: TypeAlias = Literal["crop", "replicate", "zeros"]


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


def check_pool_padding(kernel: Sequence[int], padding: Sequence[int], *, same: bool = False) -> None:
    """Raise `ValueError` where a window could lie wholly in the padding, as the pools of `torch.nn` do.

    With `same`, padding depends on the input's size: there must be none beside it.
    """
    if same and any(padding):
        msg = f"same padding leaves no room for another, got {tuple(padding)}"
        raise ValueError(msg)
    if any(p < 0 or 2 * p > k for k, p in zip(kernel, padding, strict=True)):
        msg = f"padding must be between 0 and half the kernel {tuple(kernel)}, got {tuple(padding)}"
        raise ValueError(msg)


class Phases(NamedTuple):
    """One axis of a strided window, seen after space-to-depth; a tuple, so that fx can take it for an argument.

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

    @property
    def excess(self) -> int:
        """The e of the output size floor((n + e) / s) + 1 for n input positions."""
        return sum(self.padding) - self.kernel * self.scale


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


def same_padding(spatial: Sequence[int], extent: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Give the padding, low and high per axis, with which a window gives ceil(n / s) outputs.

    TensorFlow's SAME: max((ceil(n/s) - 1)·s + extent - n, 0) positions, the odd one of them above. As
    `timm.layers.pad_same` computes it, from the size of each input.

    Args:
        spatial: Sizes of the input.
        extent: Positions from a window's first tap to its last, d·(k - 1) + 1.
        stride: Steps of the window.
    """
    total = [
        max((math.ceil(n / s) - 1) * s + reach - n, 0) for n, reach, s in zip(spatial, extent, stride, strict=True)
    ]
    return [(t // 2, t - t // 2) for t in total]


def space_to_depth(x: Tensor, scale: Sequence[int]) -> Tensor:
    """Rearrange blocks of positions into channels; nothing is lost.

    Args:
        x: (N, C, *spatial); each spatial size divisible by its scale.
        scale: Block size per spatial axis.

    Returns:
        (N, C·s₁·s₂…, *spatial / scale). Channel c·s₁·s₂ + r₁·s₂ + r₂ holds phase (r₁, r₂) of channel c: the order of
        `torch.nn.PixelUnshuffle`, for any number of axes and unequal scales.
    """
    if all(s == 1 for s in scale):
        return x
    # PyTorch's own gives an empty batch back as it was.
    if len(scale) == 2 and scale[0] == scale[1] and x.shape[0] != 0:  # noqa: PLR2004 - two axes
        return F.pixel_unshuffle(x, scale[0])
    dims = len(scale)
    blocks = [part for size, s in zip(x.shape[2:], scale, strict=True) for part in (size // s, s)]
    split = x.reshape(x.shape[0], x.shape[1], *blocks)
    order = [0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    return split.permute(order).flatten(1, 1 + dims)


def whole_blocks(x: Tensor, scale: Sequence[int], edge: Edge) -> Tensor:
    """Make every size a multiple of the scale at its high side.

    Args:
        x: (…, *spatial).
        scale: Block size per spatial axis.
        edge: `crop` drops the positions that fill no block, `replicate` fills the last block up with the edge value,
            `zeros` with zeros.
    """
    spatial = x.shape[x.dim() - len(scale) :]
    high = [-(n % s) if edge == "crop" else -n % s for n, s in zip(spatial, scale, strict=True)]
    if not any(high):
        return x
    pads = [size for above in reversed(high) for size in (0, above)]
    return F.pad(x, pads, mode="replicate" if edge == "replicate" else "constant")


def scatter_taps(weight: Tensor, axes: Sequence[Phases]) -> Tensor:
    """Move each tap of a strided convolution's weight to its phase; all other entries are zero.

    Along one axis tap u comes to place q·s + r of the equal strided kernel of K·s taps; space-to-depth of that kernel
    is the new weight. Only padding and reshaping: blocks do this at each run, on any device, and in ONNX.

    Args:
        weight: (O, I, *k), the weight of the strided convolution, I per group.
        axes: One entry per spatial axis.

    Returns:
        (O, I·s₁·s₂…, *K); input channels in the order of `torch.nn.PixelUnshuffle` (channel-major), the only one in
        which groups stay contiguous. Differentiable in `weight`.
    """
    for i, axis in enumerate(axes):
        weight = _spread(weight, 2 + i, axis)
    moved = space_to_depth(weight, [axis.scale for axis in axes])
    # A copy with plain strides: by those that moving leaves behind at axes of one position, PyTorch would take a 1×1
    # kernel for channels-last, lay out the output so, and draw another dropout mask over it.
    return moved.clone(memory_format=torch.contiguous_format)


def _spread(weight: Tensor, dim: int, axis: Phases) -> Tensor:
    """Put zeros between and around the taps along one axis, as the equal strided kernel of K·s taps has them."""
    places = [tap * axis.scale + phase for tap, phase in axis.taps]
    step = places[1] - places[0] if len(places) > 1 else 1
    weight = weight.movedim(dim, -1)
    if step > 1:  # the zeros after the last tap go again below, where the high padding is negative
        weight = F.pad(weight.unsqueeze(-1), (0, step - 1)).flatten(-2)
    high = axis.kernel * axis.scale - places[0] - weight.shape[-1]
    return F.pad(weight, (places[0], high)).movedim(-1, dim)
