"""Group norm over channels each of which has become several: every copy is normalised with its own kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

if TYPE_CHECKING:
    from torch import Tensor


@torch.fx.wrap
def spd_group_norm(  # noqa: PLR0913 - a norm's arguments
    x: Tensor, groups: int, copies: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Apply a group norm to each set of copies; the function behind `SPDGroupNorm`."""
    batch, channels, spatial = x.shape[0], x.shape[1] // copies, x.shape[2:]
    split = x.reshape(batch, channels, copies, *spatial).transpose(1, 2)
    sets = split.reshape(batch * copies, channels, *spatial)
    normed = F.group_norm(sets, groups, eps=eps).reshape(split.shape).transpose(1, 2).reshape(x.shape)
    if weight is None or bias is None:
        return normed
    shape = (1, -1, *[1] * len(spatial))
    # As torch's own, in the dtype of the input also where the weights have another (autocast).
    return (normed * weight.reshape(shape) + bias.reshape(shape)).to(normed.dtype)


class SPDGroupNorm(nn.Module):
    """Group norm of a tensor whose channels are s² phases each, channel-major as `torch.nn.PixelUnshuffle` has them.

    A plain group norm would take the phases of a few channels for one group; this one makes s² times the groups, each
    of one phase. So the first phases come out as the group norm of the first phases alone.

    Args:
        num_groups: Groups of each phase.
        num_channels: Channels of the input, all phases together.
        copies: Phases of each channel.
        eps: Added to the variance.
        affine: Whether each channel has a learnable weight and bias.

    Shape:
        Input and output (N, C·s², *spatial).

    Raises:
        ValueError: The channels cannot be divided so.
    """

    def __init__(
        self, num_groups: int, num_channels: int, copies: int, *, eps: float = 1e-5, affine: bool = True
    ) -> None:
        """Make the norm, weight 1 and bias 0."""
        super().__init__()
        if num_channels % (num_groups * copies):
            msg = f"cannot divide {num_channels} channels into {copies} phases of {num_groups} groups"
            raise ValueError(msg)
        self.num_groups, self.num_channels, self.copies, self.eps = num_groups, num_channels, copies, eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def reset_parameters(self) -> None:
        """Set weight 1 and bias 0, as `torch.nn.GroupNorm` does."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    @classmethod
    def from_norm(cls, norm: nn.GroupNorm, copies: int) -> Self:
        """Make it from a group norm whose tensors have become more already; they are taken over, not copied."""
        block = cls(norm.num_groups, norm.num_channels, copies, eps=norm.eps, affine=False)
        block.weight, block.bias = norm.weight, norm.bias
        block.train(norm.training)
        return block

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C·s², *spatial)."""
        return spd_group_norm(x, self.num_groups, self.copies, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{self.num_groups}, {self.num_channels}, copies={self.copies}, eps={self.eps}"
