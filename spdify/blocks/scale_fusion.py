"""The levels of a feature pyramid, each mixed with its neighbours by weights that are chosen at every position.

Written from the definition in arXiv 1911.09516. A level starts with nearly all weight on itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks.deformable_conv import ZeroConv2d

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spdify.records import Shape

Interpolation: TypeAlias = Literal["nearest", "bilinear"]


class Resize(nn.Module):
    """One level in the size and with the channels of another.

    To a finer one, a 1×1 convolution and interpolation; to a coarser one, max pools of stride 2 and a 3×3 convolution
    of stride 2, which brings the last halving. Interpolation also makes up for what sizes are not exact multiples.

    Args:
        in_channels: Of the level that is read.
        out_channels: Of the level that is written.
        halvings: How many times the size is halved; 0 to a finer level or one of nearly the same size.
        interpolation: How positions between are read.
    """

    def __init__(self, in_channels: int, out_channels: int, *, halvings: int, interpolation: Interpolation) -> None:
        """Make the layers."""
        super().__init__()
        self.pools = max(halvings - 1, 0)
        self.interpolation: Interpolation = interpolation
        window = (3, 2, 1) if halvings else (1, 1, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, *window)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, *size of `like`)."""
        for _ in range(self.pools):
            x = F.max_pool2d(x, 3, 2, 1)
        return resized(self.conv(x), like, self.interpolation)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"pools={self.pools}, interpolation={self.interpolation!r}"


class LevelFusion(nn.Module):
    """What one level becomes: Σ_m softmax_m(weight maps) · level m in its size, then a 3×3 convolution.

    The weight maps are made by a 1×1 convolution of each resized level, and one over all of these together, which
    starts at zero but for its bias: so at every position the level's own weight starts at `own`, and the others share
    the rest. The last convolution starts as the identity.

    Args:
        channels: Of every level that takes part.
        place: Of the level itself among these.
        halvings: For each level that takes part, how many times its size is halved to the level's.
        compress: Channels that each level is brought to for the weight maps.
        own: The level's own weight at the start.
        interpolation: As in `Resize`.
    """

    def __init__(  # noqa: PLR0913 - what a level is made of
        self,
        channels: Sequence[int],
        place: int,
        halvings: Sequence[int],
        *,
        compress: int,
        own: float,
        interpolation: Interpolation,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.place, self.own, count = place, own, channels[place]
        self.resize = nn.ModuleList(
            nn.Identity() if m == place else Resize(c, count, halvings=halvings[m], interpolation=interpolation)
            for m, c in enumerate(channels)
        )
        self.compress = nn.ModuleList(nn.Conv2d(count, compress, 1) for _ in channels)
        self.choose = ZeroConv2d(compress * len(channels), len(channels), 1)
        self.expand = nn.Conv2d(count, count, 3, padding=1)
        self.start()

    def start(self) -> None:
        """Give the level's own weight its start, and make the last convolution the identity."""
        others = len(self.resize) - 1
        with torch.no_grad():
            self.choose.reset_parameters()
            if others and self.choose.bias is not None:
                self.choose.bias[self.place] = math.log(self.own / (1 - self.own) * others)
            nn.init.dirac_(self.expand.weight)
            nn.init.zeros_(self.expand.get_parameter("bias"))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map the levels that take part, (N, C_m, H_m, W_m), to the level itself."""
        own = levels[self.place]
        maps = [level if m == self.place else self.resize[m](level, own) for m, level in enumerate(levels)]
        hints = [layer(level) for layer, level in zip(self.compress, maps, strict=True)]
        weights = torch.softmax(self.choose(torch.cat(hints, dim=-3)), dim=-3)
        y: Tensor = self.expand(mixed(maps, weights))
        return y


class AdaptiveScaleFusion(nn.Module):
    """Adaptively spatial feature fusion (arXiv 1911.09516, section 3) of a pyramid, starting near the identity.

    Args:
        channels: Of each level.
        sizes: (H, W) of each level for one image: what is halved how often is settled by them; other sizes may follow.
        reach: How many levels to either side, in the order of sizes, take part in each.
        compress: Channels that each level is brought to for the weight maps.
        own: Weight of the level itself at the start, between 0 and 1.
        interpolation: How a coarser level is brought to a finer one's size.

    Shape:
        Tensors (N, C_l, H_l, W_l) in a list, tuple or dictionary; the same comes out.

    Raises:
        ValueError: Arguments do not fit together.
    """

    OPAQUE: ClassVar[bool] = True  # its own strided convolutions and pools are no sites

    def __init__(  # noqa: PLR0913 - what a pyramid is fused by
        self,
        channels: Sequence[int],
        sizes: Sequence[Shape],
        *,
        reach: int = 2,
        compress: int = 16,
        own: float = 0.99,
        interpolation: Interpolation = "nearest",
    ) -> None:
        """Make the layers."""
        super().__init__()
        if len(channels) != len(sizes) or len(sizes) < 2 or reach < 1 or not 0 < own < 1:  # noqa: PLR2004 - one is none
            msg = f"cannot fuse levels of {tuple(channels)} channels and sizes {tuple(sizes)}, reach {reach}, own {own}"
            raise ValueError(msg)
        order = sorted(range(len(sizes)), key=lambda level: -math.prod(sizes[level]))
        rank = {level: n for n, level in enumerate(order)}
        every = range(len(sizes))
        self.takes = [[m for m in every if abs(rank[m] - rank[level]) <= reach] for level in every]
        self.levels = nn.ModuleList(
            LevelFusion(
                [channels[m] for m in taken], taken.index(level), [_halvings(sizes[m], sizes[level]) for m in taken],
                compress=compress, own=own, interpolation=interpolation,
            )
            for level, taken in enumerate(self.takes)
        )  # fmt: skip

    def reset_parameters(self) -> None:
        """Draw all layers anew."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
        for layer in self.modules():
            if isinstance(layer, LevelFusion):
                layer.start()

    def forward(self, x: Any) -> Any:  # noqa: ANN401 - a list, tuple or dictionary of maps
        """Fuse the levels of a pyramid."""
        maps = list(x.values()) if isinstance(x, Mapping) else list(x)
        fused = [fusion([maps[m] for m in taken]) for fusion, taken in zip(self.levels, self.takes, strict=True)]
        if isinstance(x, Mapping):
            return type(x)(zip(x.keys(), fused, strict=True))  # type: ignore[call-arg]  # as dictionaries are made
        return type(x)._make(fused) if hasattr(type(x), "_make") else type(x)(fused)  # a named tuple, or another


def _halvings(size: Shape, wanted: Shape) -> int:
    """Give how many times a size is to be halved to come nearest to another; 0 where that is not smaller."""
    ratio = math.sqrt(math.prod(size) / math.prod(wanted))
    return max(round(math.log2(ratio)), 0)


@torch.fx.wrap
def resized(x: Tensor, like: Tensor, interpolation: Interpolation) -> Tensor:
    """Bring maps (…, H, W) to the size of others."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    if x.dim() == like.dim() == 3:  # noqa: PLR2004 - without a batch
        return resized(x[None], like[None], interpolation)[0]
    corners = {} if interpolation == "nearest" else {"align_corners": False}
    return F.interpolate(x, size=list(size), mode=interpolation, **corners)


@torch.fx.wrap
def mixed(maps: list[Tensor], weights: Tensor) -> Tensor:
    """Sum maps (…, C, H, W), each weighed by its channel of (…, L, H, W)."""
    first, *rest = (y * weights[..., m : m + 1, :, :] for m, y in enumerate(maps))
    return functools.reduce(torch.add, rest, first)
