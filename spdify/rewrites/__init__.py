"""Rewrites: one file each, listed here by hand.

A rule names a rewrite by its key in `REGISTRY`; plans keep that name, so a key never changes its meaning.
"""

from typing import Any

from spdify.rewrites.anti_aliasing import AntiAlias
from spdify.rewrites.asff import InsertScaleFusion
from spdify.rewrites.aspp import InsertAtrousPyramid
from spdify.rewrites.average_pool import ReplaceAveragePool
from spdify.rewrites.base import Rewrite
from spdify.rewrites.blur_pool import ReplaceBlurPool
from spdify.rewrites.cbam import InsertAttention
from spdify.rewrites.deform_conv import DeformConv
from spdify.rewrites.dynamic_pool import LearnRatio
from spdify.rewrites.folded_pool import FoldPool
from spdify.rewrites.max_pool import ReplaceMaxPool
from spdify.rewrites.non_local import InsertNonLocal
from spdify.rewrites.removed_pool import RemovePool
from spdify.rewrites.rfb import InsertReceptiveField
from spdify.rewrites.se import InsertSqueezeExcitation
from spdify.rewrites.shape_adaptor import AdaptShape
from spdify.rewrites.stem import ReplaceStem
from spdify.rewrites.stn import InsertSpatialTransformer
from spdify.rewrites.strided_conv import ReplaceStridedConv
from spdify.rewrites.subsampling_slice import ReplaceSubsamplingSlice
from spdify.rewrites.unstrided_conv import UnstrideConv

REGISTRY: dict[str, type[Rewrite[Any]]] = {
    "adapt-shape": AdaptShape,
    "anti-alias": AntiAlias,
    "deform-conv": DeformConv,
    "fold-pool": FoldPool,
    "insert-asff": InsertScaleFusion,
    "insert-aspp": InsertAtrousPyramid,
    "insert-cbam": InsertAttention,
    "insert-non-local": InsertNonLocal,
    "insert-rfb": InsertReceptiveField,
    "insert-se": InsertSqueezeExcitation,
    "insert-stn": InsertSpatialTransformer,
    "learn-ratio": LearnRatio,
    "remove-pool": RemovePool,
    "replace-average-pool": ReplaceAveragePool,
    "replace-blur-pool": ReplaceBlurPool,
    "replace-max-pool": ReplaceMaxPool,
    "replace-stem": ReplaceStem,
    "replace-strided-conv": ReplaceStridedConv,
    "replace-subsampling-slice": ReplaceSubsamplingSlice,
    "unstride-conv": UnstrideConv,
}

__all__ = [
    "REGISTRY",
    "AdaptShape",
    "AntiAlias",
    "DeformConv",
    "FoldPool",
    "InsertAttention",
    "InsertScaleFusion",
    "InsertSpatialTransformer",
    "InsertSqueezeExcitation",
    "LearnRatio",
    "RemovePool",
    "ReplaceAveragePool",
    "ReplaceBlurPool",
    "ReplaceMaxPool",
    "ReplaceStem",
    "ReplaceStridedConv",
    "ReplaceSubsamplingSlice",
    "Rewrite",
    "UnstrideConv",
]
