"""Width and depth factors, as the paper scales its networks (arXiv 2208.03641, section 4): plans of their own.

Depth n becomes max(round(n·f), 1) blocks: further ones are copies of a stage's last block whose residual branch is
silenced (its last layer is zero), so that they pass on what they get: exact. Fewer blocks are another function.
Width C becomes the next multiple of 8 from C·f: a convolution gets further filters with random weights, what reads them
starts with zeros for them: exact. Fewer are another function. Only where every module between can follow
(`spdify.graph.propagation`).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.errors import UsageError
from spdify.graph import fingerprint
from spdify.graph.carriers import CONVOLUTIONS, DROPOUTS
from spdify.graph.module_calls import SeenCall, record_calls
from spdify.graph.propagation import propagate
from spdify.graph.structure import lazy_copy, zero_inputs
from spdify.graph.walk import Start
from spdify.records import Layout, LeftAlone, Plan, Repeat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spdify.graph.sites import Survey
    from spdify.records import Inputs

MULTIPLE = 8  # of channels, as in the released networks
LARGEST_FACTOR = 16.0
IDENTITY_TOLERANCE = 1e-12  # in float64; a silenced branch adds exact zeros
CANDIDATES = 6  # layers at the end of a block that are tried for silencing
BATCH = 2
TOLD = 3  # reasons, and names for each, in the line for people


@dataclass(frozen=True)
class Scaling:
    """One step of scaling.

    Attributes:
        plan: What is done.
        exact: Whether the function stays.
        words: What was done, and what was not and why, for people.
    """

    plan: Plan
    exact: bool
    words: str


def check_factor(name: str, factor: float) -> None:
    """Raise `UsageError` for a factor that nothing can be scaled by."""
    if not 0 < factor <= LARGEST_FACTOR:
        msg = f"cannot scale by a {name} factor of {factor:g}: expected a number above 0, at most {LARGEST_FACTOR:g}"
        raise UsageError(msg)


def plan_depth(model: nn.Module, inputs: Inputs, factor: float) -> Scaling:
    """Plan more or fewer blocks per stage.

    Args:
        model: Not changed.
        inputs: Example inputs.
        factor: Of the number of blocks.

    Raises:
        UsageError: The factor is no such number, or the model has no stage that can be scaled by it.
    """
    check_factor("depth", factor)
    repeats: list[Repeat] = []
    kept: dict[str, str] = {}
    for path, stage, block_input in _stages(model, inputs):
        before = len(stage)
        after = max(round(before * factor), 1)
        if after == before:
            kept[path] = f"{before} blocks times {factor:g} are as many, rounded"
            continue
        silenced, reason = _silencing(stage[-1], block_input)
        if silenced:
            repeats.append(Repeat(path=path, before=before, after=after, silenced=silenced))
        else:
            kept[path] = reason
    if not repeats:
        reasons = f": {_grouped(kept)}" if kept else ""
        msg = f"cannot scale the depth of {type(model).__name__} by {factor:g}: no stage gets another number of blocks"
        raise UsageError(
            f"{msg}{reasons}",
            hint="Scaled are sequences whose last block is residual and keeps the shape of its input.",
        )
    plan = Plan(
        rulebook=f"depth {factor:g}", fingerprint=fingerprint(model), inputs=inputs, decisions=(),
        repeats=tuple(repeats), left_alone=_left_alone(model, kept),
    )  # fmt: skip
    numbers = ", ".join(f"{r.path} {r.before} → {r.after}" for r in repeats)
    words = f"depth {factor:g}: blocks of {numbers}"
    if kept:
        words += f"; not the others, since {_grouped(kept)}"
    return Scaling(plan, all(r.after >= r.before for r in repeats), words)


def plan_width(model: nn.Module, survey: Survey, inputs: Inputs, factor: float) -> Scaling:
    """Plan more filters for every convolution that can have them.

    Args:
        model: Not changed.
        survey: Of the model.
        inputs: Example inputs that it was made with.
        factor: Of the number of channels; below 1 the last ones of each layer are taken out.

    Raises:
        UsageError: The factor is no such number, or no convolution can be widened.
    """
    check_factor("width", factor)
    wanted = {
        path: Start(path, layout, own=True)
        for path, module in model.named_modules()
        if type(module) in CONVOLUTIONS and (layout := _wider(module, factor)) is not None
    }
    if not wanted:
        msg = f"cannot scale the width of {type(model).__name__} by {factor:g}: no dense convolution has others to have"
        raise UsageError(msg, hint=f"Channels become multiples of {MULTIPLE}.")
    found = propagate(survey.flows, survey.facts, wanted, {})
    wider = len(wanted.keys() - found.stopped.keys())
    if not wider:
        reasons = _grouped(found.stopped)
        raise UsageError(f"cannot scale the width of {type(model).__name__} by {factor:g}: {reasons}")
    plan = Plan(
        rulebook=f"width {factor:g}", fingerprint=fingerprint(model), inputs=inputs, decisions=(),
        adjustments=found.adjustments, left_alone=_left_alone(model, found.stopped),
    )  # fmt: skip
    words = f"width {factor:g}: {wider} of {len(wanted)} dense convolutions {'wider' if factor > 1 else 'narrower'}"
    if found.stopped:
        words += f"; not the others, since {_grouped(found.stopped)}"
    return Scaling(plan, exact=factor > 1, words=words)


def _grouped(reasons: Mapping[str, str]) -> str:
    """Give the first reasons with the names that they hold for, in one line; the plan has all of them."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name or "the model")
    told = [f"{reason} ({_listed(whose)})" for reason, whose in list(names.items())[:TOLD]]
    more = len(names) - len(told)
    return "; ".join([*told, f"and {more} other reasons"] if more else told)


def _listed(names: list[str]) -> str:
    more = len(names) - TOLD
    return ", ".join([*names[:TOLD], f"{more} more"] if more > 0 else names)


def _left_alone(model: nn.Module, reasons: Mapping[str, str]) -> tuple[LeftAlone, ...]:
    return tuple(
        LeftAlone(path=path, operator=type(model.get_submodule(path)).__name__, reason=reason)
        for path, reason in reasons.items()
    )


def _wider(convolution: Any, factor: float) -> Layout | None:  # noqa: ANN401 - attributes of three classes
    """Give the channels that a dense convolution is to have; None where they stay."""
    count = convolution.out_channels
    wanted = max(math.ceil(count * factor / MULTIPLE) * MULTIPLE, MULTIPLE)
    if convolution.groups != 1 or wanted == count or (wanted > count) != (factor > 1):
        return None
    if wanted < count:
        return Layout(runs=((wanted, 1), (count - wanted, 0)))
    copies, more = divmod(wanted, count)
    runs = ((more, copies + 1), (count - more, copies))
    return Layout(runs=tuple(run for run in runs if run[0]))


def _stages(model: nn.Module, inputs: Inputs) -> Iterator[tuple[str, nn.Sequential | nn.ModuleList, Tensor]]:
    """Give every sequence of blocks with what its last block puts out, as float64 in eval mode."""
    copied = lazy_copy(model).cpu().double().eval()
    generator = torch.Generator().manual_seed(0)
    args, kwargs = zero_inputs(inputs, batch=BATCH)

    def filled(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64) if x.is_floating_point() else x

    outputs: dict[str, Any] = {}
    for path, module in copied.named_modules():
        module.register_forward_hook(lambda _m, given, out, path=path: outputs.__setitem__(path, (given, out)))
    with torch.no_grad():
        copied(*map(filled, args), **{name: filled(value) for name, value in kwargs.items()})
    for path, stage in copied.named_modules():
        if isinstance(stage, (nn.Sequential, nn.ModuleList)) and _is_stage(stage):
            given, out = outputs.get(f"{path}.{len(stage) - 1}" if path else str(len(stage) - 1), ((), None))
            if (
                len(given) == 1
                and isinstance(out, Tensor)
                and isinstance(given[0], Tensor)
                and given[0].shape == out.shape
            ):
                yield path, stage, out


def _is_stage(stage: nn.Sequential | nn.ModuleList) -> bool:
    """Whether a sequence holds blocks: modules with parts of their own, the last two of one class."""
    if [name for name, _ in stage.named_children()] != [str(i) for i in range(len(stage))] or not len(stage):
        return False
    last = stage[-1]
    holds = not isinstance(last, (nn.Sequential, nn.ModuleList)) and any(True for _ in last.children())
    return holds and (len(stage) == 1 or type(stage[-2]) is type(last))


def _silencing(block: nn.Module, x: Tensor) -> tuple[tuple[str, ...], str]:
    """Give the parameters of one layer that, when zero, make a block pass on what it gets; else none, and why."""
    if any((isinstance(m, DROPOUTS) and m.p > 0) or getattr(m, "drop_prob", 0) for m in block.modules()):
        return (), "the last block drops at random, and a copy would draw random numbers of its own"
    with torch.no_grad():
        called = list(_called(record_calls(copy.deepcopy(block), ((x,), {}))))
    for path in list(dict.fromkeys(reversed(called)))[:CANDIDATES]:
        names = tuple(f"{path}.{name}" for name, _ in block.get_submodule(path).named_parameters(recurse=False))
        if _passes_on(block, names, x):
            return names, ""
    return (), "the last block does not pass on what it gets, whichever of its last layers is zero"


def _called(call: SeenCall) -> Iterator[str]:
    """Give the layers with parameters of their own, in the order in which they run."""
    if call.path and any(True for _ in call.module.parameters(recurse=False)):
        yield call.path
    for child in call.children:
        yield from _called(child)


def _passes_on(block: nn.Module, silenced: tuple[str, ...], x: Tensor) -> bool:
    """Whether it does so whatever it has learned: of a fresh one, biases, gains and statistics are 0 and 1."""
    silent = copy.deepcopy(block)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*silent.parameters(), *silent.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():  # positive, as variances are
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
        for name in silenced:
            silent.get_parameter(name).zero_()
        results = [silent.train(training)(x.clone()) for training in (True, False)]
    return all(y.shape == x.shape and float((y - x).abs().max()) <= IDENTITY_TOLERANCE for y in results)
