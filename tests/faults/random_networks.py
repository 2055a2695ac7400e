"""Random networks: every rulebook either keeps what a network computes, or says why it does not. Never wrong.

What is the same, `tests.faults.sameness` says. Beside that a plan must survive JSON, the original must stay as it was,
and every refusal must have a reason.
"""

from __future__ import annotations

import gc
import json
import random
import tempfile
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import spdify
from spdify.engine import apply, exact_part, plan_model
from spdify.engine.carrying import changed_tensors
from spdify.errors import CheckFailedError, NothingToConvertError, SpdifyError
from spdify.graph import survey, take_census
from spdify.graph.operations import SITE, judge
from spdify.records import Plan
from spdify.rulebook import list_rulebooks, load_rulebook
from spdify.sources import describe_inputs
from tests.faults.networks import Network, build, make_network
from tests.faults.sameness import WrongError, compare, randomised, require, require_same_state, state_of
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from spdify.graph.sites import Survey
    from spdify.rulebook import Rulebook
    from tests.faults.trials import Outcome, Trial


OTHERS = 2  # rulebooks beside `spd` for each network
FULL_EVERY = 20  # networks, of which one has the whole of `spdify.convert` prove itself


@dataclass
class Finding:
    """What came of one network.

    Attributes:
        ends: By rulebook: exact, mixed, approximate, nothing, refused, or `error:` with the message.
        sites: How many were applied, kept and refused.
        fault: What is wrong, if anything.
        outcome: Of the trial.
    """

    ends: dict[str, str] = field(default_factory=dict)
    sites: Counter[str] = field(default_factory=Counter)
    fault: str = ""
    outcome: Outcome = "held"


def examine(network: Network, books: Sequence[str], folder: Path, *, seed: int = 0, full: str = "") -> Finding:
    """Convert a network by each of some rulebooks, and see whether it is still the same.

    Args:
        network: To be converted.
        books: Names of rulebooks.
        folder: For its source.
        seed: Of weights and inputs.
        full: Rulebook that the whole of `spdify.convert` is run with; empty for none.
    """
    found = Finding()
    torch.manual_seed(seed)
    model = build(network, folder).eval()
    rulebooks = {book: load_rulebook(book) for book in books}
    inputs = describe_inputs(torch.zeros(1, *network.shape))
    before: list[Survey] = []

    def look() -> str:
        kinds = frozenset[Any]().union(*(one.kinds for one in rulebooks.values()))
        before.append(survey(model, inputs, kinds))
        require(not before[0].disagreements, f"the eyes disagree: {before[0].disagreements}")
        return ""

    def try_book(rulebook: Rulebook) -> str:
        plan = plan_model(model, before[0], rulebook, inputs=inputs)
        found.sites.update(decision.action for decision in plan.decisions)
        return _examine(model, before[0], rulebook, plan, seed)

    if _tell(found, "survey", look):
        for book, rulebook in rulebooks.items():
            _tell(found, book, partial(try_book, rulebook))
        if full:
            _tell(found, f"{full} (convert)", partial(_convert, model, network, full, seed))
    if found.outcome == "held" and not {"exact", "mixed", "approximate"} & set(found.ends.values()):
        found.outcome = "refused"
    return found


def _tell(found: Finding, name: str, step: Callable[[], str]) -> bool:
    """Take a step and note how it ended; gives whether there is nothing to complain of."""
    try:
        end = step()
    except SpdifyError as error:
        end = f"error: {error.message}"
    except WrongError as error:
        end, found.fault, found.outcome = "wrong", f"{name}: {error}", "wrong"
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding
        end, found.outcome = "traceback", "traceback"
        found.fault = f"{name}: {traceback.format_exc()[-1500:]}"
    if end:
        found.ends[name] = end
    return not end


def _examine(model: nn.Module, before: Survey, rulebook: Rulebook, plan: Plan, seed: int) -> str:
    """Convert by one plan; gives how it ended."""
    for decision in plan.decisions:
        require(decision.action == "applied" or bool(decision.reason), f"{decision.site.name}: no reason")
    require(all(left.reason for left in plan.left_alone), "something is left alone without a reason")
    if not plan.applied:
        return "refused" if plan.with_action("refused") else "nothing"
    source = randomised(model, seed)
    kept, modes = state_of(source), [module.training for module in source.modules()]
    converted = apply(source, plan)
    require_same_state(kept, state_of(source), "the original was changed")
    _require_replay(source, plan, converted)
    compare(source, converted, plan, exact=_is_exact(plan), seed=seed, modes=_modes(before))
    partly = exact_part(plan, before)
    if partly.applied and not _is_exact(plan):
        compare(source, apply(source, partly), partly, exact=True, seed=seed, modes=_modes(before))
    require_same_state(kept, state_of(source), "the original was changed")
    require(modes == [module.training for module in source.modules()], "the original's mode was changed")
    if rulebook.name == "spd":
        _require_nothing_left(converted, plan, before)
    return "exact" if _is_exact(plan) else "mixed" if partly.applied else "approximate"


def _is_exact(plan: Plan) -> bool:
    return all(decision.claim is not None and decision.claim.value == "exact" for decision in plan.applied)


def _modes(before: Survey) -> tuple[bool, ...]:
    return (False,) if before.eval_only else (False, True)


def _require_replay(source: nn.Module, plan: Plan, converted: nn.Module) -> None:
    """A plan survives JSON, and gives the same bits again; what is no site keeps name and value."""
    again = Plan.model_validate_json(plan.model_dump_json())
    require(again == plan, "the plan's JSON is another plan")
    require_same_state(state_of(converted), state_of(apply(source, again)), "the plan's JSON gives another network")
    prefixes = tuple(f"{path}." for d in plan.applied for path in d.site.block_paths)
    theirs, changed = converted.state_dict(), changed_tensors(plan.adjustments)
    for name, tensor in source.state_dict().items():
        if not name.startswith(prefixes):
            require(name in theirs, f"{name} has lost its name")
            require(name in changed or torch.equal(tensor, theirs[name]), f"{name} has other values")


def _require_nothing_left(converted: nn.Module, plan: Plan, before: Survey) -> None:
    """In either mode, nothing downsamples but what the plan names."""
    applied = {decision.site.name for decision in plan.applied}
    left = [site for site in before.sites if site.kind == "downsampling" and site.name not in applied]
    for mode, batch in (("eval", 1), ("train", 2)):
        if mode == "train" and before.eval_only:
            continue
        census = take_census(converted.float(), plan.inputs, mode=mode, batch=batch)  # type: ignore[arg-type]
        seen = {op.name for op in census.operations if judge(op) == SITE}
        allowed = {s.name if s.expression or not s.operation else s.path for s in left if mode in s.modes}
        require(seen == allowed, f"{mode}: left over {sorted(seen - allowed)}, gone {sorted(allowed - seen)}")


def _convert(model: nn.Module, network: Network, book: str, seed: int) -> str:
    """Run all of `spdify.convert`: its own proofs must not find fault with what is right."""
    example = torch.randn(1, *network.shape, generator=torch.Generator().manual_seed(seed))
    try:
        conversion = spdify.convert(model, example_input=example, rules=book, seed=seed)
    except NothingToConvertError:
        return "nothing"
    except CheckFailedError as error:
        raise WrongError(f"a false alarm, or a true one: {error.message}") from error
    return "exact" if _is_exact(conversion.plan) else "approximate"


def case_of(number: int, seed: int) -> tuple[Network, list[str], str]:
    """Give a network by its number, the rulebooks that it is converted by, and the one that `convert` runs."""
    network = make_network(random.Random(f"{seed}/{number}").choice)
    others = [book for book in list_rulebooks() if book != "spd"]
    rotated = [others[(number * OTHERS + i) % len(others)] for i in range(OTHERS)]
    turn = number // FULL_EVERY
    full = [*others, "spd"][turn % (len(others) + 1)] if number % FULL_EVERY == 0 else ""
    return network, ["spd", *rotated], full


def _try(number: int, seed: int) -> tuple[Outcome, str]:
    network, books, full = case_of(number, seed)
    with tempfile.TemporaryDirectory() as folder:
        found = examine(network, books, Path(folder), seed=number, full=full)
    detail: dict[str, Any] = {"ends": found.ends, "sites": dict(found.sites), "features": network.features}
    if found.fault:
        detail = {"fault": found.fault, **detail, "source": network.source, "shape": network.shape}
    return found.outcome, json.dumps(detail, separators=(",", ":"))


def warm_up(count: int = 12) -> None:
    """Do most of the work for some other networks, so that forked processes find what is remembered between them.

    No gradient is computed: PyTorch refuses that in a child of a process that has.
    """
    books = [load_rulebook(book) for book in list_rulebooks()]
    kinds = frozenset[Any]().union(*(book.kinds for book in books))
    for number in range(count):
        network = make_network(random.Random(f"warm/{number}").choice)
        inputs = describe_inputs(torch.zeros(1, *network.shape))
        with tempfile.TemporaryDirectory() as folder, suppress(SpdifyError):
            model = build(network, Path(folder)).eval()
            before = survey(model, inputs, kinds)
            for book in books:
                apply(model, plan_model(model, before, book, inputs=inputs))
    gc.freeze()


def cases(count: int, seed: int) -> Iterator[Case]:
    """Give networks by their numbers."""
    warm_up()
    for number in range(count):
        yield Case(f"{number:05d}", "random network", partial(_try, number, seed))


def statistics(trials: Iterable[Trial]) -> dict[str, Counter[str]]:
    """Sum up: how the conversions ended, by rulebook and in all; decisions; networks by what is in them."""
    found: dict[str, Counter[str]] = {"all": Counter()}
    for trial in trials:
        try:
            detail = json.loads(trial.detail)
        except json.JSONDecodeError:  # it was killed
            continue
        for book, end in detail["ends"].items():
            for name in (book, "all"):
                found.setdefault(name, Counter())[end.split(":", maxsplit=1)[0]] += 1
        found.setdefault("sites", Counter()).update(detail["sites"])
        found.setdefault("features", Counter()).update(detail["features"])
    return found


PART = Part("random_networks", cases, full=10_000, short=100, timeout_s=120)
