"""What the rewrites of all pools share: a block for each channel count with which a pool is called."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from spdify.blocks import SPDPerChannels
from spdify.rewrites.base import ParamsT, Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Site


class ReplacePool(Rewrite[ParamsT]):
    """A pool has no weights, so one may serve any number of channels; a block has as many as it was made for.

    Where a pool runs over several channel counts there is one block for each, and they learn on their own.
    """

    @abstractmethod
    def block(self, site: Site, channels: int) -> nn.Module:
        """Make the block for one channel count."""

    @abstractmethod
    def block_weights(self, site: Site, channels: int) -> dict[str, Tensor]:
        """Give the whole state dict of the block for one channel count, in full precision, on the CPU."""

    def build(self, site: Site) -> nn.Module:
        """Make the block, or one per channel count."""
        if not site.channels:
            return self.block(site, site.geometry.in_channels)
        return SPDPerChannels({count: self.block(site, count) for count in site.channels}, site.geometry.dims)

    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - a pool has none
        """Give the weights that make the block the pool."""
        if not site.channels:
            return self.block_weights(site, site.geometry.in_channels)
        return {
            f"blocks.{count}.{name}": tensor
            for count in site.channels
            for name, tensor in self.block_weights(site, count).items()
        }

    def layout(self, site: Site, channels: int) -> nn.Module:
        """Make a block without weights, for its layout: a real one would draw from the caller's random numbers."""
        with torch.device("meta"):
            return self.block(site, channels)
