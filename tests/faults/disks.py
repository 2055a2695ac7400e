"""Disks of their own, for what must not be done to those that are there."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def mounts() -> bool:
    """Whether this process may mount file systems: only root may, and not in every container."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", home], capture_output=True, check=False)  # noqa: S607
        if done.returncode == 0:
            subprocess.run(["umount", home], check=True)  # noqa: S607
    return done.returncode == 0


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Give a file system of its own of some size."""
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", home], check=True)  # noqa: S607
        try:
            yield Path(home)
        finally:
            subprocess.run(["umount", "--lazy", home], check=True)  # noqa: S607


def remount(disk: Path, option: str) -> None:
    """Change a file system that is mounted."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)  # noqa: S607
