"""What a model downsamples with, before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from spdify.records import Inputs, LeftAlone, Measure, Record, Site
from spdify.reporting.measuring import measure

if TYPE_CHECKING:
    from torch import nn

    from spdify.graph.sites import Survey


class Inspection(Record):
    """Sites of a model.

    Attributes:
        model: Its name.
        inputs: Shapes that the sites were found with.
        cost: Of the whole model at batch 1.
        sites: In execution order.
        left_alone: Pools and slices that are no sites, and why.
        disagreements: What the trace and the census do not agree on; empty when they do.
        one_eye: Modules whose own code torch.fx cannot follow: there the census alone looks.
        eval_only: Why the model does not run in train mode on these inputs; empty where it does.
    """

    schema_version: Literal[1] = 1
    model: str
    inputs: Inputs
    cost: Measure
    sites: tuple[Site, ...]
    left_alone: tuple[LeftAlone, ...]
    disagreements: tuple[str, ...]
    one_eye: tuple[str, ...] = ()
    eval_only: str = ""


def make_inspection(name: str, model: nn.Module, inputs: Inputs, seen: Survey) -> Inspection:
    """Put a survey into a record."""
    return Inspection(
        model=name,
        inputs=inputs,
        cost=measure(model, seen.census),
        sites=seen.sites,
        left_alone=seen.left_alone,
        disagreements=seen.disagreements,
        one_eye=seen.one_eye,
        eval_only=seen.eval_only,
    )
