"""The parts of the fault campaign, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults import random_networks

if TYPE_CHECKING:
    from tests.faults.trials import Part

PARTS: dict[str, Part] = {random_networks.PART.name: random_networks.PART}
