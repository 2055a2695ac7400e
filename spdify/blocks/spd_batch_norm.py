"""Batch norm over channels each of which has become several: one scale, shift and statistics for all copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


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
        # The phases of a channel lie one after the other, so they are as good as more rows.
        channels, rows, width = input.shape[1] // self.copies, input.shape[2] * self.copies, input.shape[3]
        return super().forward(input.reshape(-1, channels, rows, width)).reshape(input.shape)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"{super().extra_repr()}, copies={self.copies}"  # type: ignore[no-untyped-call]
