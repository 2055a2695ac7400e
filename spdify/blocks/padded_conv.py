"""A strided convolution whose padding differs from side to side: what an SPD-Conv is, seen from outside.

An SPD-Conv with K taps over blocks of s positions is a convolution with kernel K·s, stride s and padding (low, high).
Taps that are zero at a border of every filter are left out, and where what is left lies on a grid, it is dilated: an
SPD-Conv that nobody has trained folds back to the very convolution that it was made from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.spd_conv import AxisPadding, flat_padding, with_margin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class _Padded:
    """Pads, then convolves; comes before a convolution of `torch.nn` in the list of bases.

    Attributes:
        pads: Zero positions in the order of `torch.nn.functional.pad`: last axis first, low and high; negative crops.
        margin: As in `SPDConv`; padded before everything else.
        margin_mode: Its `padding_mode`.
    """

    pads: tuple[int, ...]
    margin: tuple[int, ...]
    margin_mode: str
    stride: tuple[int, ...]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch.nn calls it
        """Map (N, C_in, *spatial) to (N, C_out, *out)."""
        x = with_margin(input, self.stride, self.margin, self.margin_mode)
        for pads in self.steps:
            x = F.pad(x, pads)
        y: Tensor = super().forward(x)  # type: ignore[misc]  # of torch.nn
        return y

    @property
    def steps(self) -> list[tuple[int, ...]]:
        """What to pad, then what to crop: a small map may be smaller than what is cropped of it and its padding."""
        parts = [tuple(max(size, 0) for size in self.pads), tuple(min(size, 0) for size in self.pads)]
        return [part for part in parts if any(part)]

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        text = f"{super().extra_repr()}, pads={self.pads}"  # type: ignore[misc]  # of torch.nn
        return f"{text}, margin={self.margin}, margin_mode={self.margin_mode!r}" if self.margin else text


class PaddedConv1d(_Padded, nn.Conv1d):
    """`torch.nn.Conv1d` with a padding for each side."""


class PaddedConv2d(_Padded, nn.Conv2d):
    """`torch.nn.Conv2d` with a padding for each side."""


class PaddedConv3d(_Padded, nn.Conv3d):
    """`torch.nn.Conv3d` with a padding for each side."""


# Any: their arguments are tuples of different lengths to a type checker.
PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PADDED: dict[int, Any] = {1: PaddedConv1d, 2: PaddedConv2d, 3: PaddedConv3d}


def strided_convolution(  # noqa: PLR0913 - a convolution's arguments
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[AxisPadding],
    *,
    groups: int = 1,
    margin: Sequence[int] = (),
    margin_mode: str = "zeros",
    whole: bool = False,
) -> nn.Module:
    """Make the smallest convolution that computes the same: one of `torch.nn` where both sides are padded alike.

    Args:
        weight: (O, I / groups, *k).
        bias: (O,) or None.
        stride: One per axis.
        padding: Per axis (low, high) zero positions; negative crops.
        groups: Of the convolution.
        margin: As in `SPDConv`.
        margin_mode: Its `padding_mode`.
        whole: Keep taps that are zero in every filter.

    Returns:
        The convolution, with copies of weight and bias.
    """
    dims = len(stride)
    dilation = (1,) * dims
    if not whole:
        weight, padding, dilation = _smallest(weight, padding)
    shape: dict[str, Any] = {"stride": tuple(stride), "dilation": dilation, "groups": groups, "bias": bias is not None}
    sizes = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
    equal = all(low == high >= 0 for low, high in padding)
    conv: Any
    with torch.device("meta"):
        if equal and not margin:
            conv = PLAIN[dims](*sizes, padding=tuple(low for low, _ in padding), **shape)
        elif margin and margin_mode in {"reflect", "replicate", "circular"} and not any(map(any, padding)):
            conv = PLAIN[dims](*sizes, padding=tuple(margin), padding_mode=margin_mode, **shape)
        else:
            conv = PADDED[dims](*sizes, **shape)
            conv.pads, conv.margin, conv.margin_mode = tuple(flat_padding(padding)), tuple(margin), margin_mode
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    copies = {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in state.items()}
    conv.load_state_dict(copies, assign=True)
    module: nn.Module = conv
    return module


def _smallest(weight: Tensor, padding: Sequence[AxisPadding]) -> tuple[Tensor, list[AxisPadding], tuple[int, ...]]:
    """Leave out taps that are zero in every filter; give weight, padding and dilation of what is left."""
    pads, dilation = [], []
    for axis, (low, high) in enumerate(padding, start=2):
        others = [i for i in range(weight.dim()) if i != axis]
        used = weight.detach().ne(0).any(dim=tuple(others)) if weight.numel() else weight.new_zeros(0)
        taps = [i for i, flag in enumerate(used.tolist()) if flag] or [0]
        step = math.gcd(*(tap - taps[0] for tap in taps)) or 1
        pads.append((low - taps[0], high - (weight.shape[axis] - 1 - taps[-1])))
        dilation.append(step)
        weight = weight.index_select(axis, torch.arange(taps[0], taps[-1] + 1, step, device=weight.device))
    return weight, pads, tuple(dilation)
