"""A model that was built, with where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import Inputs, Source


@dataclass
class LoadedModel:
    """A model ready to be looked at.

    Attributes:
        model: In eval mode, on the CPU.
        source: Where it came from, and how to build its structure again.
        inputs: Example inputs at batch 1.
    """

    model: nn.Module
    source: Source
    inputs: Inputs
