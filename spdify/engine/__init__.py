"""Rules bound to rewrites, plans made and applied, weights mapped."""

from spdify.engine.applying import apply, apply_lazily, check_fingerprint, rebuild
from spdify.engine.binding import bind, make_rewrite
from spdify.engine.channels import exact_part
from spdify.engine.classifiers import plan_classifier
from spdify.engine.fitting import plan_model
from spdify.engine.fusing import fuse, fuse_blocks
from spdify.engine.planning import make_plan
from spdify.engine.weight_map import map_weights

__all__ = [
    "apply",
    "apply_lazily",
    "bind",
    "check_fingerprint",
    "exact_part",
    "fuse",
    "fuse_blocks",
    "make_plan",
    "make_rewrite",
    "map_weights",
    "plan_classifier",
    "plan_model",
    "rebuild",
]
