"""Rewrites: one file each, listed here by hand.

A rule names a rewrite by its key in `REGISTRY`; plans keep that name, so a key never changes its meaning.
"""

from typing import Any

from spdify.rewrites.average_pool import ReplaceAveragePool
from spdify.rewrites.base import Rewrite
from spdify.rewrites.blur_pool import ReplaceBlurPool
from spdify.rewrites.max_pool import ReplaceMaxPool
from spdify.rewrites.strided_conv import ReplaceStridedConv
from spdify.rewrites.subsampling_slice import ReplaceSubsamplingSlice

REGISTRY: dict[str, type[Rewrite[Any]]] = {
    "replace-average-pool": ReplaceAveragePool,
    "replace-blur-pool": ReplaceBlurPool,
    "replace-max-pool": ReplaceMaxPool,
    "replace-strided-conv": ReplaceStridedConv,
    "replace-subsampling-slice": ReplaceSubsamplingSlice,
}

__all__ = [
    "REGISTRY",
    "ReplaceAveragePool",
    "ReplaceBlurPool",
    "ReplaceMaxPool",
    "ReplaceStridedConv",
    "ReplaceSubsamplingSlice",
    "Rewrite",
]
