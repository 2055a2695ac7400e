"""Batch norm over channels each of which has become several: one scale, shift and statistics for all copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

if TYPE_CHECKING:
    from torch import Tensor


@torch.fx.wrap
def spd_batch_norm2d(  # noqa: PLR0913 - a norm's arguments
    x: Tensor,
    copies: int,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: tuple[Tensor | None, Tensor | None, Tensor | None],
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Apply a batch norm to all copies of a channel at once; the function behind `SPDBatchNorm2d`.

    Args:
        x: (N, C·copies, H, W).
        copies: Of each channel.
        weight: (C,) or None.
        bias: (C,) or None.
        statistics: Running mean and variance, (C,), and the number of batches, all changed in training; or None.
        training: Whether the batch's own statistics are used.
        momentum: Share of a batch in the running statistics; None for their mean over all batches.
        eps: Added to the variance.
    """
    mean, variance, count = statistics
    if training and count is not None:
        count.add_(1)
        momentum = 1.0 / float(count) if momentum is None else momentum
    # The phases of a channel lie one after the other, so they are as good as more rows.
    batch, channels, rows, width = x.shape
    together = x.reshape(batch, channels // copies, rows * copies, width)
    normed = F.batch_norm(together, mean, variance, weight, bias, training or mean is None, momentum or 0.0, eps)
    return normed.reshape(x.shape)


class SPDBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of a tensor whose channels are s² phases each, channel-major as `torch.nn.PixelUnshuffle` has them.

    The phases of a channel share its weight, bias and statistics. That is a plain batch norm before space-to-depth: as
    in YOLOv5-SPD of the code released with arXiv 2208.03641, where convolution, norm and activation come first.

    Args:
        num_features: Channels, each counted once.
        copies: Phases of each channel.
        eps: Added to the variance.
        momentum: Share of a batch in the running statistics; None for their mean over all batches.
        affine: Whether each channel has a learnable weight and bias.
        track_running_stats: Whether there are running statistics.

    Shape:
        Input and output (N, num_features · copies, H, W).
    """

    def __init__(  # noqa: PLR0913 - a norm's arguments
        self,
        num_features: int,
        copies: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        """Make the norm, weight 1 and bias 0."""
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.copies = copies

    @classmethod
    def from_norm(cls, norm: nn.BatchNorm2d, copies: int) -> Self:
        """Make it from a batch norm; its tensors are taken over, not copied."""
        block = cls(
            norm.num_features, copies, eps=norm.eps, momentum=norm.momentum, affine=False, track_running_stats=False
        )
        block.affine, block.track_running_stats = norm.affine, norm.track_running_stats
        block.weight, block.bias = norm.weight, norm.bias
        block.running_mean, block.running_var = norm.running_mean, norm.running_var
        block.num_batches_tracked = norm.num_batches_tracked
        return block.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch has it
        """Normalise (N, C·s², H, W)."""
        statistics = (self.running_mean, self.running_var, self.num_batches_tracked)
        return spd_batch_norm2d(
            input, self.copies, self.weight, self.bias, statistics, self.training, self.momentum, self.eps
        )

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{super().extra_repr()}, copies={self.copies}"  # type: ignore[no-untyped-call]
