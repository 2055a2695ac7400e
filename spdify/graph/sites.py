"""The sites of a model: both eyes, in both modes, put together and compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from spdify.errors import TraceError
from spdify.graph.adapters import module_geometry
from spdify.graph.census import Census, take_census
from spdify.graph.obstacles import ModuleFacts
from spdify.graph.operations import SITE, Operation, judge
from spdify.graph.trace import Trace, trace_model
from spdify.records import Call, Inputs, InputSpec, LeftAlone, Mode, Site

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from spdify.records import Operator

MODES: tuple[Mode, ...] = ("eval", "train")
TRAIN_BATCH = 2  # batch norm cannot train on one value per channel


@dataclass(frozen=True)
class Survey:
    """What a model downsamples with.

    Attributes:
        sites: In the order in which they run.
        left_alone: Pools and slices that are no sites.
        disagreements: What one eye saw and the other did not, in words; empty when they agree.
        census: Census in eval mode at batch 1, with costs.
    """

    sites: tuple[Site, ...]
    left_alone: tuple[LeftAlone, ...]
    disagreements: tuple[str, ...]
    census: Census


def survey(model: nn.Module, inputs: Inputs) -> Survey:
    """Find every site of a model, by trace and by census, in eval and in train mode.

    Args:
        model: Not changed.
        inputs: Shapes of its inputs.

    Raises:
        TraceError: The model cannot be traced or does not run.
    """
    censuses, seen, both = {}, {}, []
    traces: dict[Mode, Trace] = {}
    for mode in MODES:
        batch = TRAIN_BATCH if mode == "train" else 1
        censuses[mode] = take_census(model, inputs, mode=mode, batch=batch)
        traces[mode] = trace_model(model, inputs, mode=mode, batch=batch)
        seen[mode], disagreement = _compare(model, traces[mode], censuses[mode], mode)
        both += disagreement
    facts = ModuleFacts(model, traces["eval"].reads | traces["train"].reads)
    elsewhere = _channels_at_another_size(model, inputs) if _has_called_pool(seen) else {}
    sites = _sites(seen, facts, censuses["eval"], elsewhere)
    left = [op for op in seen["eval"] if judge(op) != SITE]
    return Survey(sites, _left_alone(left), tuple(both), censuses["eval"])


def _compare(model: nn.Module, trace: Trace, census: Census, mode: Mode) -> tuple[list[Operation], list[str]]:
    """Give what the trace saw, with what only the census saw behind it, and the disagreements in words."""
    by_trace = Counter(op.key for op in trace.operations)
    by_census = Counter(op.key for op in census.operations)
    words = []
    extra = []
    for op in _surplus(census.operations, by_trace):
        closed = next((path for path in trace.unopened if f"{op.owner}.".startswith(f"{path}.")), None)
        if closed is not None:
            extra.append(_hidden(model, op, closed))
            continue
        if judge(op) == SITE:
            words.append(f"{mode}: the forward pass runs {op.description}, the trace does not show it")
        extra.append(op)
    words += [
        f"{mode}: the trace shows {op.description}, the forward pass does not run it"
        for op in _surplus(trace.operations, by_census)
        if judge(op) == SITE
    ]
    return trace.operations + extra, words


def _hidden(model: nn.Module, op: Operation, composite: str) -> Operation:
    """Describe an operator inside a composite that the trace could not open.

    The window of a called module is read from the module: a reflecting convolution pads before the operator
    that the census sees.
    """
    if not op.called:
        return replace(op, inside=composite)
    geometry = module_geometry(model.get_submodule(op.owner), op.operator, op.call.input, op.call.output)
    return replace(op, inside=composite, geometry=geometry)


def _surplus(operations: Iterable[Operation], known: Counter[tuple[object, ...]]) -> list[Operation]:
    """Give the operations beyond those that are known, counted with repetition."""
    left = known.copy()
    surplus = []
    for op in operations:
        if left[op.key] > 0:
            left[op.key] -= 1
        else:
            surplus.append(op)
    return surplus


def _has_called_pool(seen: dict[Mode, list[Operation]]) -> bool:
    return any(op.called and op.operator != "conv" and judge(op) == SITE for mode in MODES for op in seen[mode])


def _channels_at_another_size(model: nn.Module, inputs: Inputs) -> dict[str, set[int]]:
    """Give the channels that reach each called pool when the inputs are larger.

    A pool over a transposed tensor takes a spatial axis for its channels; a block with as many channels would hold the
    network to one input size. Empty where the network takes no other size.
    """
    found: dict[str, set[int]] = defaultdict(set)
    try:
        census = take_census(model, _enlarged(inputs), mode="eval")
    except TraceError:
        return {}
    for op in census.operations:
        if op.called:
            found[op.owner].add(op.geometry.in_channels)
    return found


def _enlarged(inputs: Inputs) -> Inputs:
    """Give the same inputs with larger spatial sizes (all axes but batch and channels)."""

    def one(spec: InputSpec) -> InputSpec:
        return spec.model_copy(update={"shape": (*spec.shape[:2], *(2 * n for n in spec.shape[2:]))})

    return Inputs(args=tuple(map(one, inputs.args)), kwargs={name: one(spec) for name, spec in inputs.kwargs.items()})


class _Channels:
    """Channel counts with which each called pool runs: a block has a fixed number, or one block stands for each.

    Attributes:
        here: By path, at the size of the inputs, in either mode; calls that are no sites (global ones) too.
    """

    def __init__(self, seen: dict[Mode, list[Operation]], elsewhere: dict[str, set[int]]) -> None:
        """Collect them; `elsewhere` holds those at another size, in eval mode."""
        self.here: dict[str, set[int]] = defaultdict(set)
        for op in (op for mode in MODES for op in seen[mode] if op.called and op.operator != "conv"):
            self.here[op.owner].add(op.geometry.in_channels)
        self._in_eval = {op.owner: set[int]() for op in seen["eval"]}
        for op in seen["eval"]:
            self._in_eval[op.owner].add(op.geometry.in_channels)
        self._elsewhere = elsewhere

    def several(self, owner: str) -> tuple[int, ...]:
        """Give the counts of a pool where there is more than one; else nothing."""
        found = self.here.get(owner, ())
        return tuple(sorted(found)) if len(found) > 1 else ()

    def depend_on_size(self, owner: str) -> str:
        """List the counts where another size brings one that is new, or lacks one; else nothing."""
        here, elsewhere = self.here.get(owner, set()), self._elsewhere.get(owner, set())
        if not here or not elsewhere or not (elsewhere - here or self._in_eval.get(owner, set()) - elsewhere):
            return ""
        return ", ".join(map(str, sorted(here | elsewhere)))


def _is_same_window(one: Operation, other: Operation) -> bool:
    """Whether two calls run the same window; a called pool may do so over other channels."""
    if not one.called or one.operator == "conv":
        return one.geometry == other.geometry
    free = {"in_channels": 1, "out_channels": 1}
    return one.geometry.model_copy(update=free) == other.geometry.model_copy(update=free)


def _sites(
    seen: dict[Mode, list[Operation]], facts: ModuleFacts, census: Census, elsewhere: dict[str, set[int]]
) -> tuple[Site, ...]:
    """Join the calls of each called module, and number the functional calls of each owner."""
    channels = _Channels(seen, elsewhere)
    groups: dict[str, list[tuple[Mode, Operation]]] = defaultdict(list)
    for mode in MODES:
        numbers: Counter[str] = Counter()
        for op in seen[mode]:
            if judge(op) != SITE:
                continue
            if op.called:
                groups[op.owner].append((mode, op))
            else:
                operation = f"{op.operator}:{numbers[f'{op.owner}#{op.operator}']}"
                numbers[f"{op.owner}#{op.operator}"] += 1
                groups[f"{op.owner}#{operation}"].append((mode, op))
    return tuple(_site(name, calls, facts, census, channels) for name, calls in groups.items())


def _site(
    name: str,
    calls: list[tuple[Mode, Operation]],
    facts: ModuleFacts,
    census: Census,
    channels: _Channels,
) -> Site:
    first = calls[0][1]
    modes = tuple(mode for mode in MODES if any(m == mode for m, _ in calls))
    shapes = tuple(_at_batch_1(op.call, mode) for mode, op in calls if mode == modes[0])
    obstacles = facts.obstacles(first.owner) if first.called else ()
    if not all(_is_same_window(first, op) for _, op in calls):
        obstacles += ("it runs with different windows or channel counts from call to call, or from mode to mode",)
    elif first.called and (counts := channels.depend_on_size(first.owner)):
        obstacles += (f"its number of channels depends on the input size ({counts})",)
    return Site(
        path=first.owner,
        operation="" if first.called else name.split("#", 1)[1],
        operator=cast("Operator", first.operator),  # an adaptive pool is no site
        type_name=first.type_name,
        geometry=first.geometry,
        calls=shapes,
        aliases=facts.aliases(first.owner) if first.called else (),
        constants=facts.constants(first.owner) if first.called else {},
        channels=channels.several(first.owner) if first.called else (),
        modes=modes,
        inside=first.inside,
        obstacles=obstacles,
        macs=census.macs.get(first.owner, 0) if first.called else 0,
    )


def _at_batch_1(call: Call, mode: Mode) -> Call:
    """Give the shapes for a batch of one; frames or patches that the model folds into the batch stay."""
    if mode == "eval":
        return call
    first, out = (shape[0] // TRAIN_BATCH or 1 for shape in (call.input, call.output))
    return Call(input=(first, *call.input[1:]), output=(out, *call.output[1:]))


def _left_alone(operations: Iterable[Operation]) -> tuple[LeftAlone, ...]:
    """List what is no site, once per owner and reason."""
    groups: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for op in operations:
        name = f"{op.operator}{op.geometry.dims}d {op.geometry}" if op.operator != "adaptive_pool" else op.type_name
        groups[op.owner, name, judge(op)].append(op.call)
    return tuple(
        LeftAlone(path=path, operator=operator, reason=reason, calls=tuple(calls))
        for (path, operator, reason), calls in groups.items()
    )
