"""Training and measuring classifiers: recipes, batches, the loop, metrics."""

from spdify.training.batches import Share, make_batches
from spdify.training.calibrating import calibrate_norms, fit_pool, output_error, pool_error
from spdify.training.carried import carried_masks
from spdify.training.comparing import Difference, mean_interval, paired_difference
from spdify.training.measuring import Scores, scores_of
from spdify.training.reading import measured_batches
from spdify.training.recipes import RECIPES, make_recipe
from spdify.training.size_cost import SizeCost, size_cost_of
from spdify.training.snapshot import pack, unpack
from spdify.training.trainer import Trainer, join_all, make_accelerator

__all__ = [
    "RECIPES",
    "Difference",
    "Scores",
    "Share",
    "SizeCost",
    "Trainer",
    "calibrate_norms",
    "carried_masks",
    "fit_pool",
    "join_all",
    "make_accelerator",
    "make_batches",
    "make_recipe",
    "mean_interval",
    "measured_batches",
    "output_error",
    "pack",
    "paired_difference",
    "pool_error",
    "scores_of",
    "size_cost_of",
    "unpack",
]
