"""The parts of the fault campaign, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults import clock, interrupts, kills, launches, memory, pipes, random_networks, storage, writers
from tests.faults.arguments import ARGUMENTS
from tests.faults.bundles import BUNDLES
from tests.faults.images import IMAGES
from tests.faults.onnx_files import ONNX
from tests.faults.rulebooks import RULEBOOKS

if TYPE_CHECKING:
    from tests.faults.trials import Part

PARTS: dict[str, Part] = {
    "kill_convert": kills.CONVERT,
    "kill_sweep": kills.SWEEP,
    "kill_training": kills.TRAINING,
    "interrupts": interrupts.INTERRUPTS,
    "storage": storage.STORAGE,
    "writers": writers.WRITERS,
    "clock": clock.CLOCK,
    "memory": memory.MEMORY,
    "pipes": pipes.PIPES,
    "launches": launches.LAUNCHES,
    "rulebooks": RULEBOOKS,
    "bundles": BUNDLES,
    "onnx": ONNX,
    "images": IMAGES,
    "arguments": ARGUMENTS,
    "random_networks": random_networks.PART,
}
