"""The conversion, step by step."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Unpack

from spdify.budgeting import BudgetSettings
from spdify.budgeting.planning import PREFER
from spdify.engine import apply, apply_lazily
from spdify.errors import CheckFailedError, NothingToConvertError, RefusedError, UsageError
from spdify.graph import survey
from spdify.graph.census import take_census
from spdify.graph.parts import shown_parts
from spdify.pipeline.conversion import Conversion, origin_of
from spdify.pipeline.opening import open_model
from spdify.pipeline.planning import budget_checks, plan_opened
from spdify.pipeline.scaling import Scaled, scale
from spdify.reporting import make_report, measure
from spdify.rulebook import load_rules
from spdify.sources import example_inputs
from spdify.verification import PROOF_LEVELS, choose_level, failed, prove

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from spdify.pipeline.opening import Opened
    from spdify.records import Check, Kind, Part, Plan
    from spdify.sources import BuildArguments
    from spdify.sources.example import Example

PROOF_BATCH = 2
INITS = ("exact", "random")


def convert(  # noqa: PLR0913 - the options of the command line
    model: str | Path | nn.Module,
    *,
    rules: str | Sequence[str] = "spd",
    overrides: Sequence[str] = (),
    example_input: Example | None = None,
    code: str | None = None,
    proof: str = "auto",
    init: str = "exact",
    width_factor: float = 1.0,
    depth_factor: float = 1.0,
    budget: str | Sequence[str] = (),
    prefer: str = PREFER,
    strict: bool = False,
    command: str = "",
    progress: Callable[[str], None] = lambda _: None,
    **build: Unpack[BuildArguments],
) -> Conversion:
    """Convert a model, and prove what the rewrites claim.

    Args:
        model: A source (`resnet50`, `tv:resnet18`, `net.py:factory` …), a bundle's folder, or a module (not changed).
        rules: Name of a rulebook or path of one, or several: the first with a rule for a site decides.
        overrides: `rule.param=value` items, or `book/rule.param=value`.
        example_input: Tensors that the model takes; needed for modules.
        code: For a bundle of somebody's own network, the source that builds the original.
        proof: `model`, `site`, or `auto`: `model` where the size allows.
        init: `exact` starts with the function as it was; `random` draws the weights of all blocks, and of what reads
            more channels than before, as fresh layers draw theirs: to be trained from scratch, as the paper does.
        width_factor: Channels of all dense convolutions that can follow, times this, up to the next multiple of 8.
            Before the rules; exact above 1.
        depth_factor: Blocks of each residual stage, times this; exact above 1.
        budget: What the conversion may cost, one entry or several that must all hold: `macs=+15%`, `params=+1.2M`,
            `latency=+10%` (measured here). Each site then gets the form that fits, or stays.
        prefer: What comes first: the highest `resolution`, the `last` sites, the `cheapest`, or those that a glob fits.
        strict: Make a refusal an error.
        command: Command line to record.
        progress: Told, in words, what is being done.
        **build: How to build a source: `pretrained`, `checkpoint`, `num_classes`, `in_chans`, `model_kwargs`,
            `input_size` (C, H, W), `seed` and `reparameterize`, as `spdify.sources.BuildOptions` describes them.

    Returns:
        The conversion, not yet saved; its networks lie on the CPU, wherever the model does.

    Raises:
        NothingToConvertError: No site is to be rewritten, or none fits into the budget.
        RefusedError: `strict`, and a site is refused.
        CheckFailedError: A claim does not hold.
        SpdifyError: The model cannot be opened, traced or run, or the rulebook cannot be used.
    """
    settings = ConversionSettings(
        rules, tuple(overrides), proof, init, width_factor, depth_factor, strict, build.get("seed", 0),
        BudgetSettings.read(budget, prefer),
    )  # fmt: skip
    progress("building the model")
    opened = open_model(model, example_input=example_input, code=code, **build)
    return convert_opened(opened, settings, command=command, progress=progress)


@dataclass(frozen=True)
class ConversionSettings:
    """How to convert, as `convert` takes it.

    Raises:
        UsageError: There is no such proof level or initialisation, or a budget is to hold beside a scaling.
    """

    rules: str | Sequence[str] = "spd"
    overrides: tuple[str, ...] = ()
    proof: str = "auto"
    init: str = "exact"
    width_factor: float = 1.0
    depth_factor: float = 1.0
    strict: bool = False
    seed: int = 0
    budget: BudgetSettings = field(default_factory=BudgetSettings)

    def __post_init__(self) -> None:
        """Refuse what can only fail later."""
        if self.proof not in PROOF_LEVELS:
            raise UsageError(
                f"cannot prove at level {self.proof!r}: there is none",
                hint=f"Expected one of {', '.join(PROOF_LEVELS)}.",
            )
        if self.init not in INITS:
            raise UsageError(f"cannot start with {self.init!r} weights", hint=f"Expected one of {', '.join(INITS)}.")
        if self.budget.wishes and (self.width_factor, self.depth_factor) != (1, 1):
            raise UsageError(
                "cannot keep to a budget and scale at once: a scaling is not chosen by what it costs",
                hint="Leave out --budget, or --width-factor and --depth-factor.",
            )


def convert_opened(
    opened: Opened, settings: ConversionSettings, *, command: str = "", progress: Callable[[str], None] = lambda _: None
) -> Conversion:
    """Convert a model that is there already, and prove what the rewrites claim; `convert` says what is raised.

    Args:
        opened: The model, with what led to it; not changed.
        settings: How.
        command: Command line to record.
        progress: Told, in words, what is being done.
    """
    started = time.monotonic()
    seed = settings.seed
    first, scaled, cost = opened.model, Scaled(opened), None
    parts: tuple[Part, ...] = ()
    if (settings.width_factor, settings.depth_factor) != (1, 1):
        progress("scaling")
        census = take_census(first, opened.inputs, mode="eval")
        cost, parts = measure(first, census), shown_parts(first, census)
        scaled = scale(
            opened, width=settings.width_factor, depth=settings.depth_factor, seed=seed,
            make_inputs=_proof_inputs(opened, seed), whole=choose_level(settings.proof, cost) == "model",
        )  # fmt: skip
        _require_proof(opened, scaled.checks)
        opened = scaled.opened
    progress("finding the sites")
    kinds = load_rules(settings.rules).kinds
    before = survey(opened.model, opened.inputs, kinds)
    start: Literal["exact", "random"] = "random" if settings.init == "random" else "exact"
    plan = plan_opened(
        opened, before, settings.rules, settings.overrides, settings.budget, init=start, progress=progress
    )
    _require_work(opened, plan, kinds, strict=settings.strict)
    progress(f"rewriting {len(plan.applied)} sites")
    level = choose_level(settings.proof, measure(opened.model, before.census))
    # Where float64 copies would not fit, one more of float32 may not either.
    convert_copy = apply if level == "model" else apply_lazily
    converted = convert_copy(opened.model, plan).eval()
    progress(f"proving (level {level})")
    result = prove(opened.model, converted, plan, before, _proof_inputs(opened, seed), level=level, seed=seed)
    _require_proof(opened, result.checks)
    checks = (*scaled.checks, *result.checks)
    report = make_report(
        opened.source.name,
        opened.model,
        before.census,
        converted,
        result.after.census,
        plan,
        checks=checks,
        proof=level,
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_memory(),
    )
    report = report.model_copy(update={"checks": (*report.checks, *budget_checks(report))})
    _require_proof(opened, report.checks)
    command = "\n".join(filter(None, (opened.command, command)))
    report = report.model_copy(update={"origin": origin_of(opened, command=command, seed=seed)})
    if cost is not None:
        report = report.model_copy(update={"before": cost, "parts_before": parts, "scaling": scaled.words})
    return Conversion(
        model=converted,
        plan=plan,
        checks=report.checks,
        report=report,
        source=opened.source,
        seed=seed,
        original=opened.model,
        command=command,
        earlier_plans=opened.plans,
        trainings=opened.record.trainings if opened.record else (),
        calibrations=opened.record.calibrations if opened.record else (),
        perturbed=_in_dtypes_of(converted, result.state),
    )


def _proof_inputs(opened: Opened, seed: int) -> Callable[[torch.dtype], tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
    return lambda dtype: example_inputs(opened.inputs, batch=PROOF_BATCH, seed=seed, dtype=dtype)


def _in_dtypes_of(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    own = model.state_dict()
    return {name: tensor.to(own[name].dtype) for name, tensor in state.items()}


def _nothing_found(kinds: Collection[Kind]) -> str:
    """Say what a model lacks for a rulebook to have something to do."""
    if "downsampling" in kinds:
        return "it has no strided site"
    return f"no {' and no '.join(kind.replace('_', ' ') for kind in sorted(kinds))} was found in it"


def _require_work(opened: Opened, plan: Plan, kinds: Collection[Kind], *, strict: bool) -> None:
    refused = plan.with_action("refused")
    if strict and refused:
        words = "; ".join(f"{d.site.name}: {d.reason}" for d in refused)
        raise RefusedError(
            f"cannot convert {opened.source.name} strictly: {len(refused)} sites refused. {words}",
            hint="Without --strict they stay as they are.",
        )
    if not plan.applied:
        words = "; ".join(f"{d.site.name} {d.action}: {d.reason}" for d in plan.decisions) or _nothing_found(kinds)
        raise NothingToConvertError(
            f"nothing to convert in {opened.source.name} with {plan.rulebook}: {words}",
            hint="`spdify inspect` lists what the model downsamples with.",
        )


def _require_proof(opened: Opened, checks: tuple[Check, ...]) -> None:
    if bad := failed(checks):
        words = "; ".join(f"{c.name}: {c.detail or f'{c.value:.1e} (allowed {c.tolerance:.0e})'}" for c in bad[:5])
        raise CheckFailedError(
            f"cannot convert {opened.source.name}: a claim does not hold. {words}",
            hint="Nothing was written. Please report it, with the output of `spdify inspect --json`.",
        )


def peak_memory() -> int | None:
    """Give the largest memory the process has held, in bytes; None where the system does not say."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
