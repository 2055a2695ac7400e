"""How long networks take: always side by side, in turns."""

from spdify.benchmarking.timing import forward_of, paired_seconds, ratio_to, seconds_per_image

__all__ = ["forward_of", "paired_seconds", "ratio_to", "seconds_per_image"]
