"""Looking without changing: `inspect` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from spdify.bundle import is_bundle, read_report
from spdify.engine import apply, make_plan
from spdify.graph import fingerprint, survey
from spdify.graph.census import take_census
from spdify.pipeline.opening import Opened, open_model
from spdify.reporting import compare_models, make_inspection, make_report
from spdify.rulebook import load_rulebook, with_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.records import Report
    from spdify.reporting import Inspection
    from spdify.sources import BuildOptions
    from spdify.sources.example import Example


def inspect(
    model: str | Path | nn.Module,
    *,
    example_input: Example | None = None,
    options: BuildOptions | None = None,
    code: str | None = None,
) -> Inspection:
    """List every place where a model downsamples, and what is left alone and why.

    Args:
        model: A source, a bundle's folder or a module (not changed).
        example_input: Tensors that the model takes; needed for modules.
        options: How to build a source.
        code: For a bundle of somebody's own network, the source that builds the original.

    Raises:
        SpdifyError: The model cannot be opened, traced or run.
    """
    opened = open_model(model, options=options, example_input=example_input, code=code)
    return make_inspection(opened.source.name, opened.model, opened.inputs, survey(opened.model, opened.inputs))


def report(  # noqa: PLR0913 - what to compare, and how to build it
    model: str | Path | nn.Module,
    other: str | Path | nn.Module | None = None,
    *,
    rules: str = "spd",
    overrides: Sequence[str] = (),
    example_input: Example | None = None,
    options: BuildOptions | None = None,
    code: str | None = None,
    stored: bool = True,
) -> Report:
    """Compare a model with its conversion, or with another model.

    Args:
        model: A source or a module: compared with its conversion by `rules`, which is not proved here. A bundle's folder:
            its own report.
        other: Compared with `model` in total, instead of a conversion.
        rules: Rulebook for the conversion.
        overrides: `rule.param=value` items.
        example_input: Tensors that the models take; needed for modules.
        options: How to build sources.
        code: For a bundle of somebody's own network, the source that builds the original.
        stored: Give a bundle's own report; otherwise it is compared with its conversion by `rules` like any model.

    Raises:
        SpdifyError: A model cannot be opened, traced or run.
    """
    if stored and other is None and not isinstance(model, nn.Module) and is_bundle(model):
        return read_report(Path(model))
    first = open_model(model, options=options, example_input=example_input, code=code)
    if other is None:
        return _against_conversion(first, rules, overrides)
    second = open_model(other, options=options, example_input=example_input, code=code)
    censuses = [take_census(o.model, o.inputs, mode="eval") for o in (first, second)]
    name = f"{first.source.name} → {second.source.name}"
    return compare_models(name, first.model, censuses[0], second.model, censuses[1])


def _against_conversion(opened: Opened, rules: str, overrides: Sequence[str]) -> Report:
    rulebook = with_overrides(load_rulebook(rules), overrides)
    before = survey(opened.model, opened.inputs)
    plan = make_plan(before, rulebook, fingerprint=fingerprint(opened.model), inputs=opened.inputs)
    converted = apply(opened.model, plan)
    after = take_census(converted, opened.inputs, mode="eval")
    return make_report(opened.source.name, opened.model, before.census, converted, after, plan)
