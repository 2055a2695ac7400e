"""Looking without changing: `inspect` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from torch import nn

from spdify.budgeting import BudgetSettings
from spdify.budgeting.planning import PREFER
from spdify.bundle import is_bundle, read_report
from spdify.engine import apply_lazily
from spdify.errors import UsageError
from spdify.graph import survey
from spdify.graph.census import take_census
from spdify.pipeline.conversion import origin_of
from spdify.pipeline.opening import Opened, open_model
from spdify.pipeline.planning import plan_opened
from spdify.reporting import compare_models, make_inspection, make_report
from spdify.reporting.decisions import compared_sites
from spdify.reporting.figures import inputs_text
from spdify.rulebook import book_names, load_rules
from spdify.sources import BuildArguments, BuildOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.records import Report
    from spdify.reporting import Inspection
    from spdify.sources.example import Example

DEFAULT_RULES = "spd"


def inspect(
    model: str | Path | nn.Module,
    *,
    example_input: Example | None = None,
    code: str | None = None,
    **build: Unpack[BuildArguments],
) -> Inspection:
    """List every place where a model downsamples, and what is left alone and why.

    Args:
        model: A source, a bundle's folder or a module (not changed).
        example_input: Tensors that the model takes; needed for modules.
        code: For a bundle of somebody's own network, the source that builds the original.
        **build: How to build a source: `pretrained`, `checkpoint`, `num_classes`, `in_chans`, `model_kwargs`,
            `input_size` (C, H, W), `seed` and `reparameterize`, as `spdify.sources.BuildOptions` describes them.

    Raises:
        SpdifyError: The model cannot be opened, traced or run.
    """
    opened = open_model(model, example_input=example_input, code=code, **build)
    return make_inspection(opened.source.name, opened.model, opened.inputs, survey(opened.model, opened.inputs))


def report(  # noqa: PLR0913 - what to compare, and how to build it
    model: str | Path | nn.Module,
    other: str | Path | nn.Module | None = None,
    *,
    rules: str | Sequence[str] = DEFAULT_RULES,
    overrides: Sequence[str] = (),
    budget: str | Sequence[str] = (),
    prefer: str = PREFER,
    example_input: Example | None = None,
    code: str | None = None,
    stored: bool = True,
    command: str = "",
    **build: Unpack[BuildArguments],
) -> Report:
    """Compare a model with its conversion, or with another model.

    Args:
        model: A source or a module: compared with its conversion by `rules`, which is not proved here. A bundle's
            folder: its own report.
        other: Compared with `model` in total, instead of a conversion.
        rules: Rulebook for the conversion, or several: the first with a rule for a site decides.
        overrides: `rule.param=value` items, or `book/rule.param=value`.
        budget: What the conversion may cost, as `spdify.convert` takes it.
        prefer: What is bought first, likewise.
        example_input: Tensors that the models take; needed for modules.
        code: For a bundle of somebody's own network, the source that builds the original.
        command: Command line to record.
        stored: Give a bundle's own report; otherwise it is compared with its conversion by `rules` like any model.
        **build: How to build sources: `pretrained`, `checkpoint`, `num_classes`, `in_chans`, `model_kwargs`,
            `input_size` (C, H, W), `seed` and `reparameterize`, as `spdify.sources.BuildOptions` describes them.

    Raises:
        NothingToConvertError: No form of any site fits into the budget.
        SpdifyError: A model cannot be opened, traced or run.
    """
    allowed = BudgetSettings.read(budget, prefer)
    if stored and other is None and not isinstance(model, nn.Module) and is_bundle(model):
        _require_as_stored(model, rules, (*overrides, *allowed.wishes), example_input, BuildOptions(**build))
        return read_report(Path(model))
    codes = _codes(code, model, other)
    first = open_model(model, example_input=example_input, code=codes[0], **build)
    if other is None:
        origin = origin_of(first, command="\n".join(filter(None, (first.command, command))), seed=build.get("seed", 0))
        return _against_conversion(first, rules, overrides, allowed).model_copy(update={"origin": origin})
    second = open_model(other, example_input=example_input, code=codes[1], **build)
    censuses = [take_census(o.model, o.inputs, mode="eval") for o in (first, second)]
    name = " → ".join(_titles((model, first), (other, second)))
    compared = compare_models(name, first.model, censuses[0], second.model, censuses[1])
    origin = origin_of(first, second, command=command, seed=build.get("seed", 0))
    # Sites of one name are the same only where both networks come from one.
    same = (first.source.spec, first.source.kwargs) == (second.source.spec, second.source.kwargs)
    sites = compared_sites(first.plans, second.plans) if same else ()
    return compared.model_copy(update={"origin": origin, "compared": sites})


def _codes(code: str | None, *models: str | Path | nn.Module | None) -> list[str | None]:
    """Give the code to those of two models that are bundles; to all, who will refuse it, where none is."""
    bundles = [model is not None and not isinstance(model, nn.Module) and is_bundle(model) for model in models]
    return [code if bundle or not any(bundles) else None for bundle in bundles]


def _require_as_stored(
    model: str | Path,
    rules: str | Sequence[str],
    overrides: Sequence[object],
    example_input: Example | None,
    options: BuildOptions,
) -> None:
    """Refuse wishes that a bundle's own report cannot follow."""
    other = book_names(rules) != (DEFAULT_RULES,) or overrides or example_input is not None
    if other or options != BuildOptions(seed=options.seed):
        raise UsageError(
            f"cannot report {model} with other rules, inputs or weights: a bundle gives the report it was saved with",
            hint="Leave the options out, or name the original model.",
        )


def _titles(*named: tuple[str | Path | nn.Module, Opened]) -> list[str]:
    """Name two models, with their inputs where these differ: MACs at different sizes are easily misread."""
    differ = len({inputs_text(opened.inputs) for _, opened in named}) > 1
    return [_title(model, opened) + f" at {inputs_text(opened.inputs)}" * differ for model, opened in named]


def _title(model: str | Path | nn.Module, opened: Opened) -> str:
    """Give a bundle's folder, for several may come of one model; else the name."""
    return opened.source.name if opened.record is None or isinstance(model, nn.Module) else Path(model).resolve().name


def _against_conversion(
    opened: Opened, rules: str | Sequence[str], overrides: Sequence[str], budget: BudgetSettings
) -> Report:
    before = survey(opened.model, opened.inputs, load_rules(rules).kinds)
    plan = plan_opened(opened, before, rules, overrides, budget)
    converted = apply_lazily(opened.model, plan)
    after = take_census(converted, opened.inputs, mode="eval")
    return make_report(opened.source.name, opened.model, before.census, converted, after, plan)
