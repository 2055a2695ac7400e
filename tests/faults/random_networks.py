"""Random networks: every rulebook either keeps what a network computes, or says why it does not. Never wrong.

The oracle knows nothing of `spdify.verification`: it runs original and converted network in float64, with random
weights and statistics, in both modes, and compares outputs, buffers and gradients.
"""

from __future__ import annotations

import copy
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
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import spdify
from spdify.engine import apply, exact_part, plan_model
from spdify.engine.carrying import before_changes, changed_tensors
from spdify.errors import CheckFailedError, NothingToConvertError, SpdifyError
from spdify.graph import survey, take_census
from spdify.graph.operations import SITE, judge
from spdify.records import Plan
from spdify.rulebook import list_rulebooks, load_rulebook
from spdify.sources import describe_inputs
from tests.faults.networks import Network, build, make_network
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from spdify.graph.sites import Survey
    from spdify.records import Decision
    from spdify.rulebook import Rulebook
    from tests.faults.trials import Outcome, Trial

BATCH = 3
#: Of the largest value of an output. Sums in another order differ by some 1e-15 in float64, and by 1e-12 through norms
#: over few positions; a wrong weight differs by far more.
TOLERANCE, SINGLE = 1e-9, 1e-6
#: A steep network moves as far as it likes: what it does itself, with inputs off by the last digit, is no fault.
NUDGE, STEEP, LARGEST, NOISE = 1e-15, 1e3, 1e-5, 1e-2
OTHERS = 2  # rulebooks beside `spd` for each network
FULL_EVERY = 20  # networks, of which one has the whole of `spdify.convert` prove itself


class _DroppedByShape(TorchFunctionMode):
    """Has dropout draw in the order of indices: the memory format that a block gives its map is no part of a claim."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func is nn.functional.dropout:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


class WrongError(Exception):
    """What was promised does not hold; the message says what."""


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
        _require(not before[0].disagreements, f"the eyes disagree: {before[0].disagreements}")
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


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise WrongError(words)


def _examine(model: nn.Module, before: Survey, rulebook: Rulebook, plan: Plan, seed: int) -> str:
    """Convert by one plan; gives how it ended."""
    for decision in plan.decisions:
        _require(decision.action == "applied" or bool(decision.reason), f"{decision.site.name}: no reason")
    _require(all(left.reason for left in plan.left_alone), "something is left alone without a reason")
    if not plan.applied:
        return "refused" if plan.with_action("refused") else "nothing"
    source = randomised(model, seed)
    kept, modes = _state(source), [module.training for module in source.modules()]
    converted = apply(source, plan)
    _require_same_state(kept, _state(source), "the original was changed")
    _require_replay(source, plan, converted)
    compare(source, converted, plan, exact=_is_exact(plan), seed=seed, modes=_modes(before))
    partly = exact_part(plan, before)
    if partly.applied and not _is_exact(plan):
        compare(source, apply(source, partly), partly, exact=True, seed=seed, modes=_modes(before))
    _require_same_state(kept, _state(source), "the original was changed")
    _require(modes == [module.training for module in source.modules()], "the original's mode was changed")
    if rulebook.name == "spd":
        _require_nothing_left(converted, plan, before)
    return "exact" if _is_exact(plan) else "mixed" if partly.applied else "approximate"


def _is_exact(plan: Plan) -> bool:
    return all(decision.claim is not None and decision.claim.value == "exact" for decision in plan.applied)


def _modes(before: Survey) -> tuple[bool, ...]:
    return (False,) if before.eval_only else (False, True)


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Give a copy in float64 whose every tensor is random: nothing is zero, or one, by chance of its start."""
    generator = torch.Generator().manual_seed(seed)
    source = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, tensor in source.state_dict().items():
            if not tensor.is_floating_point():
                continue
            normal = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var") or (tensor.dim() <= 1 and name.endswith(("weight", "gain"))):
                tensor.copy_(0.5 + normal.abs())
            elif tensor.dim() > 1:
                tensor.copy_(normal / max(tensor[0].numel(), 1) ** 0.5)
            else:
                tensor.copy_(0.3 * normal)
    return source


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _require_same_state(first: dict[str, Tensor], second: dict[str, Tensor], words: str) -> None:
    _require(first.keys() == second.keys(), f"{words}: {sorted(first.keys() ^ second.keys())}")
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    _require(not different, f"{words}: {different}")


def _require_replay(source: nn.Module, plan: Plan, converted: nn.Module) -> None:
    """A plan survives JSON, and gives the same bits again; what is no site keeps name and value."""
    again = Plan.model_validate_json(plan.model_dump_json())
    _require(again == plan, "the plan's JSON is another plan")
    _require_same_state(_state(converted), _state(apply(source, again)), "the plan's JSON gives another network")
    prefixes = tuple(f"{path}." for d in plan.applied for path in d.site.block_paths)
    theirs, changed = converted.state_dict(), changed_tensors(plan.adjustments)
    for name, tensor in source.state_dict().items():
        if not name.startswith(prefixes):
            _require(name in theirs, f"{name} has lost its name")
            _require(name in changed or torch.equal(tensor, theirs[name]), f"{name} has other values")


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
        _require(seen == allowed, f"{mode}: left over {sorted(seen - allowed)}, gone {sorted(allowed - seen)}")


def compare(
    source: nn.Module, converted: nn.Module, plan: Plan, *, exact: bool, seed: int, modes: Sequence[bool]
) -> None:
    """Run both networks in both modes on copies; where all is to be exact, they must agree.

    Raises:
        WrongError: They do not.
    """
    # Without a tensor of its own, a network does not say in what precision the new ones are to be made.
    tolerance = TOLERANCE if any(t.is_floating_point() for t in source.state_dict().values()) else SINGLE
    first, second = copy.deepcopy(source), copy.deepcopy(converted).double()
    _silence_dropout(first, plan)
    _silence_dropout(second, plan)
    for training in modes:
        one, other = _run(first, plan, training, seed), _run(second, plan, training, seed)
        other.buffers = before_changes(other.buffers, plan)
        words = "train" if training else "eval"
        if exact:
            _require_equal(one, other, partial(_run, first, plan, training, seed, NUDGE), tolerance, words)
        else:
            _require_alike(one, other, plan, words)
    if exact and True in modes:
        _require_same_gradients(first, second, plan, seed, tolerance)


@dataclass
class _Ran:
    outputs: list[Tensor]
    buffers: dict[str, Tensor]
    gradients: dict[str, Tensor]


def _inputs(plan: Plan, seed: int, nudge: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((BATCH, *plan.inputs.args[0].shape[1:]), generator=generator, dtype=torch.float64)
    return x * (1 + nudge * torch.randn(x.shape, generator=generator, dtype=torch.float64))


def _run(model: nn.Module, plan: Plan, training: bool, seed: int, nudge: float = 0.0, backward: bool = False) -> _Ran:
    """Run a network, and put its buffers back, so that the next run starts where this one did."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    ran = model.train(training)
    _hold_shared_norms(ran, plan)
    x = _inputs(plan, seed, nudge).requires_grad_(backward)
    torch.manual_seed(seed)
    with torch.set_grad_enabled(backward), _DroppedByShape():
        outputs = [leaf for leaf in tree_leaves(ran(x)) if isinstance(leaf, Tensor)]
    gradients: dict[str, Tensor] = {}
    if backward:
        named = {"x": x, **{name: p for name, p in ran.named_parameters() if p.requires_grad}}
        loss = sum(((y * _weights(y, seed)).sum() for y in outputs), start=torch.zeros((), dtype=torch.float64))
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        gradients = {name: g for name, g in zip(named, found, strict=True) if g is not None}
    after = {name: buffer.clone() for name, buffer in ran.named_buffers()}
    with torch.no_grad():
        for name, buffer in ran.named_buffers():
            buffer.copy_(kept[name])
    return _Ran(outputs, after, gradients)


def _weights(y: Tensor, seed: int) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _silence_dropout(model: nn.Module, plan: Plan) -> None:
    """Dropout over channels that became more draws other numbers; the claim is about the rest."""
    for adjustment in plan.adjustments:
        module = model.get_submodule(adjustment.path)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0


def _hold_shared_norms(model: nn.Module, plan: Plan) -> None:
    """Norms that phases share claim to be the same with their statistics held."""
    for adjustment in plan.adjustments:
        if adjustment.block == "SPDBatchNorm2d":
            model.get_submodule(adjustment.path).eval()


def _require_equal(one: _Ran, other: _Ran, nudged: Callable[[], _Ran], tolerance: float, words: str) -> None:
    """Outputs and buffers must agree, as far as the original agrees with itself."""
    _require([y.shape for y in one.outputs] == [y.shape for y in other.outputs], f"{words}: other shapes")
    off = _distances(one, other)
    if max(off.values(), default=0.0) < tolerance:
        return
    moved = _distances(one, nudged())
    for name, distance in off.items():
        _require_within(distance, moved[name], tolerance, f"{words}: {name} differs")


def _require_within(distance: float, moved: float, tolerance: float, words: str) -> None:
    """Compare a distance with what rounding moves; what rounding alone makes (a norm of constants) is not compared."""
    allowed = min(max(tolerance, STEEP * moved), LARGEST)
    _require(distance < allowed or moved >= NOISE, f"{words} by {distance:.1e}, allowed {allowed:.1e}")


def _distances(one: _Ran, other: _Ran) -> dict[str, float]:
    """Give how far apart outputs and buffers are, relative to the largest value of each."""
    pairs = enumerate(zip(one.outputs, other.outputs, strict=True))
    found = {f"output {i}": _off(a, b, float(a.detach().abs().max())) for i, (a, b) in pairs}
    return found | {
        name: _buffer_distance(name, one.buffers, other.buffers) for name in one.buffers if name in other.buffers
    }


def _off(a: Tensor, b: Tensor, scale: float) -> float:
    off = float((a - b).detach().abs().max())
    return off / max(scale, 1e-300) if off == off else float("inf")  # noqa: PLR0124 - NaN alone is not itself


def _buffer_distance(name: str, one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Relate a buffer to its size; a mean to its deviation, if that is larger: it may be zero."""
    a, b = one[name], other[name]
    if not a.numel() or not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    variance = one.get(name.removesuffix("mean") + "var")
    deviation = float(variance.max().sqrt()) if name.endswith("running_mean") and variance is not None else 0.0
    return _off(a, b, max(float(a.abs().max()), deviation))


def _require_alike(one: _Ran, other: _Ran, plan: Plan, words: str) -> None:
    """What is approximate gives something finite, of the same shape unless a pool is left out."""
    resized = any(decision.rewrite == "remove-pool" for decision in plan.applied)
    shapes = [[y.shape[:2] if resized else y.shape for y in ran.outputs] for ran in (one, other)]
    _require(shapes[0] == shapes[1], f"{words}: other shapes, {shapes}")
    bad = any(
        bool(a.isfinite().all()) and not b.isfinite().all() for a, b in zip(one.outputs, other.outputs, strict=True)
    )
    _require(not bad, f"{words}: not finite")


def _require_same_gradients(first: nn.Module, second: nn.Module, plan: Plan, seed: int, tolerance: float) -> None:
    """What no plan has touched learns as before, where the claims say so; so does the input."""
    if any(not _says_same(decision) for decision in plan.applied):
        return
    try:
        one = _run(first, plan, True, seed, backward=True)
    except RuntimeError:  # what it needs for its gradients it has itself overwritten: nobody can train it
        return
    other = _run(second, plan, True, seed, backward=True)
    prefixes = tuple(f"{path}." for d in plan.applied for path in d.site.block_paths)
    skipped = changed_tensors(plan.adjustments).keys()
    names = [name for name in one.gradients if not name.startswith(prefixes) and name not in skipped]
    # Gradients of biases before a norm are zero but for rounding: related to the largest of all.
    scale = max((float(g.abs().max()) for g in one.gradients.values()), default=0.0)
    for name in names:
        _require(name in other.gradients, f"gradients: {name} gets none")
    off = {name: _off(one.gradients[name], other.gradients[name], scale) for name in names}
    worst = max(off, key=lambda name: off[name], default="")
    if not worst or off[worst] < tolerance:
        return
    steep = _run(first, plan, True, seed, NUDGE, backward=True)
    moved = max(_off(one.gradients[name], steep.gradients[name], scale) for name in names)
    _require_within(off[worst], moved, tolerance, f"gradients: {worst} differs")


def _says_same(decision: Decision) -> bool:
    return decision.claim is not None and decision.claim.training.startswith("same gradient")


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
    network = make_network(random.Random(f"{seed}/{number}").choice)  # noqa: S311 - no secret
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
        network = make_network(random.Random(f"warm/{number}").choice)  # noqa: S311 - no secret
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
