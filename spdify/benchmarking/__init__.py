"""How long networks take: always side by side, in turns."""

from spdify.benchmarking.timing import forward_of, paired_seconds, ratio_to, seconds_per_image
from spdify.benchmarking.tuning import tune

__all__ = ["forward_of", "paired_seconds", "ratio_to", "seconds_per_image", "tune"]
