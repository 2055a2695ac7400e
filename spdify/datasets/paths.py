"""Paths as people write them: nothing that they may be ends in a fault of Python's own."""

from __future__ import annotations

import os
from pathlib import Path


def home_path(path: str | Path) -> Path:
    """Give a path with `~` or `~name` in front turned into that home; it stays where there is none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises where nobody has that name


def real_name(path: Path) -> str:
    """Give the name of what a path leads to; of links that lead round, that of the path itself."""
    return Path(os.path.realpath(path)).name  # pathlib's raises where links lead round
