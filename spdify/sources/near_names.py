"""Names close to one that does not exist."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 5
_CUTOFF = 0.6


def near_names(name: str, names: Iterable[str], *, elsewhere: Iterable[str] = (), prefix: str = "") -> str:
    """Ask whether a near name was meant.

    Args:
        name: What was asked for.
        names: What there is.
        elsewhere: What there is in another place, which `prefix` names.
        prefix: Put before the names from elsewhere.

    Returns:
        `Did you mean a, b?`, or nothing where no name is near.
    """
    here = set(names)
    found = difflib.get_close_matches(name, sorted(here.union(elsewhere)), n=_MOST, cutoff=_CUTOFF)
    shown = [match if match in here else prefix + match for match in found]
    return f"Did you mean {', '.join(shown)}?" if shown else ""
