"""Rewrite the downsampling of a trained CNN into SPD-Conv without losing what it has learned, and prove it."""

__version__ = "0.1.0"
