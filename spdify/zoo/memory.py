"""How much memory processes hold, where the system tells (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
GIGABYTE = 1e9
MOST_GB = 14.0


def resident_bytes(pid: int) -> int:
    """Give the memory of a process, pages that it shares with others counted in parts; 0 where that is not known."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # gone meanwhile, or no Linux
    return 0


def default_budget_gb() -> float:
    """Give what workers may hold together: 80 % of the memory that is free now, at most 14 GB."""
    try:
        text = (_PROC / "meminfo").read_text(encoding="ascii")
        free = next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return MOST_GB
    return round(min(MOST_GB, 0.8 * free / GIGABYTE), 1)


def usable_cores() -> int:
    """Give the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
