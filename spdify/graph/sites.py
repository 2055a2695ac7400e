"""The sites of a model: both eyes, in both modes, put together and compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from spdify.errors import TraceError
from spdify.graph.adapters import module_geometry
from spdify.graph.census import Census, take_census
from spdify.graph.insertions import Insertions
from spdify.graph.obstacles import ModuleFacts
from spdify.graph.operations import SITE, Operation, judge
from spdify.graph.trace import Flow, Trace, trace_model
from spdify.records import Call, Inputs, InputSpec, LeftAlone, Mode, Site

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from torch import nn

    from spdify.graph.owners import ModuleCall
    from spdify.records import Kind, Operator

MODES: tuple[Mode, ...] = ("eval", "train")
TRAIN_BATCH = 2  # batch norm cannot train on one value per channel


@dataclass(frozen=True)
class Survey:
    """What a model downsamples with.

    Attributes:
        sites: In the order in which they run.
        left_alone: Pools, slices and other ways of shrinking that are no sites, and modules whose own code only the
            census sees (`one_eye`).
        disagreements: What one eye saw and the other did not, in words; empty when they agree.
        census: Census in eval mode at batch 1, with costs.
        flows: The data flow of each part that was traced, in both modes.
        facts: What is known of each module.
        one_eye: Paths of the modules whose own code torch.fx cannot follow: what they call is traced on its own, what
            they compute themselves is seen by the census alone.
        eval_only: Why the model does not run in train mode on these inputs; empty where it does.
    """

    sites: tuple[Site, ...]
    left_alone: tuple[LeftAlone, ...]
    disagreements: tuple[str, ...]
    census: Census
    flows: tuple[Flow, ...]
    facts: ModuleFacts
    one_eye: tuple[str, ...] = ()
    eval_only: str = ""


DOWNSAMPLING: frozenset[Kind] = frozenset({"downsampling"})


def survey(model: nn.Module, inputs: Inputs, kinds: Collection[Kind] = DOWNSAMPLING) -> Survey:
    """Find every site of a model, by trace and by census, in eval and in train mode.

    Args:
        model: Not changed.
        inputs: Shapes of its inputs.
        kinds: Of sites to find, as a rulebook has rules for them; what downsamples is always found.

    Raises:
        TraceError: The model does not run in eval mode.
    """
    censuses, seen, both = {}, {}, []
    traces: dict[Mode, Trace] = {}
    eval_only = ""
    for mode in MODES:
        batch = TRAIN_BATCH if mode == "train" else 1
        try:
            censuses[mode] = take_census(model, inputs, mode=mode, batch=batch)
        except TraceError as error:
            if mode == "eval":
                raise
            # Detectors want targets to train, and some networks a larger input.
            eval_only = error.message
            break
        traces[mode] = trace_model(model, inputs, mode=mode, batch=batch)
        seen[mode], disagreement = _compare(model, traces[mode], censuses[mode], mode)
        both += disagreement
    facts = ModuleFacts(model, set().union(*(trace.reads for trace in traces.values())))
    others = frozenset(kinds) - DOWNSAMPLING
    larger = _at_another_size(model, inputs) if _has_pool(seen) or others else None
    insertions = Insertions(model, inputs, censuses["eval"], facts, _calls_of(larger))
    sites = _sites(seen, facts, censuses["eval"], _channels_of(larger))
    modes = tuple(censuses)  # what is looked for in eval mode runs in all in which the model does
    found = [site.model_copy(update={"modes": modes}) for site in insertions.find(others)]
    sites = (*map(insertions.staged, sites), *found)
    left = [op for op in seen["eval"] if judge(op) != SITE]
    unopened = {path: why for trace in reversed(traces.values()) for path, why in trace.unopened.items()}
    return Survey(
        sites=sites,
        left_alone=_left_alone(left) + _shrunk_otherwise(censuses["eval"]) + _unseen(unopened),
        disagreements=tuple(both),
        census=censuses["eval"],
        one_eye=tuple(unopened),
        eval_only=eval_only,
        flows=tuple(flow for trace in traces.values() for flow in trace.flows),
        facts=facts,
    )


def _shrunk_otherwise(census: Census) -> tuple[LeftAlone, ...]:
    """List what shrinks a map and is no convolution, pool or slice, once per owner and reason."""
    groups: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for found in census.shrinking:
        groups[found.owner, found.operator, found.reason].append(found.call)
    return tuple(
        LeftAlone(path=path, operator=operator, reason=reason, calls=tuple(calls))
        for (path, operator, reason), calls in groups.items()
    )


def _unseen(unopened: dict[str, str]) -> tuple[LeftAlone, ...]:
    """List the modules whose own code one eye sees only."""
    return tuple(
        LeftAlone(path=path, operator="its own code", reason=f"only the census looks here: {_first_sentence(why)}")
        for path, why in sorted(unopened.items())
    )


def _first_sentence(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].partition(". ")[0]


def _compare(model: nn.Module, trace: Trace, census: Census, mode: Mode) -> tuple[list[Operation], list[str]]:
    """Give what the trace saw, with what only the census saw behind it, and the disagreements in words."""
    traced = _with_places(trace.operations, census)
    by_trace = Counter(op.key for op in traced)
    by_census = Counter(op.key for op in census.operations)
    words = []
    extra = []
    for op in _surplus(census.operations, by_trace):
        closed = trace.closed_scope(op.owner)
        if closed is not None:
            extra.append(_hidden(model, op, closed))
            continue
        if judge(op) == SITE:
            words.append(f"{mode}: the forward pass runs {op.description}, the trace does not show it")
        extra.append(op)
    words += [
        f"{mode}: the trace shows {op.description}, the forward pass does not run it"
        for op in _surplus(traced, by_census)
        if judge(op) == SITE
    ]
    return traced + extra, words


def _with_places(operations: list[Operation], census: Census) -> list[Operation]:
    """Give the trace's operations with what the census alone knows of functional calls: where they are made.

    Calls that look alike are taken in the order in which they ran.
    """
    waiting: dict[tuple[object, ...], list[Operation]] = defaultdict(list)
    for op in census.operations:
        if not op.called:
            waiting[op.key].append(op)
    found = []
    for op in operations:
        twin = waiting[op.key].pop(0) if not op.called and waiting[op.key] else None
        found.append(op if twin is None else replace(op, place=twin.place, obstacle=op.obstacle or twin.obstacle))
    return found


def _hidden(model: nn.Module, op: Operation, composite: str) -> Operation:
    """Describe an operator inside a composite that the trace could not open.

    The window of a called module is read from the module: a reflecting convolution pads before the operator
    that the census sees.
    """
    if not op.called:
        return replace(op, inside=composite, type_name=f"F.{op.operator}{op.geometry.dims}d")
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


def _has_pool(seen: dict[Mode, list[Operation]]) -> bool:
    return any(op.operator != "conv" and judge(op) == SITE for ops in seen.values() for op in ops)


def _at_another_size(model: nn.Module, inputs: Inputs) -> Census | None:
    """Take a census on larger inputs; None where the network takes no other size."""
    try:
        return take_census(model, _enlarged(inputs), mode="eval")
    except TraceError:
        return None


def _calls_of(census: Census | None) -> dict[str, ModuleCall]:
    return {} if census is None else census.calls


def _channels_of(census: Census | None) -> dict[str, set[int]]:
    """Give the channels that reach each pool or slice when the inputs are larger.

    A pool over a transposed tensor takes a spatial axis for its channels; a block with as many channels would hold the
    network to one input size.
    """
    found: dict[str, set[int]] = defaultdict(set)
    for op in census.operations if census is not None else ():
        if op.called or op.place is not None:
            found[op.name].add(op.geometry.in_channels)
    return found


def _enlarged(inputs: Inputs) -> Inputs:
    """Give the same inputs with larger spatial sizes (all axes but batch and channels)."""

    def one(spec: InputSpec) -> InputSpec:
        return spec.model_copy(update={"shape": (*spec.shape[:2], *(2 * n for n in spec.shape[2:]))})

    return Inputs(args=tuple(map(one, inputs.args)), kwargs={name: one(spec) for name, spec in inputs.kwargs.items()})


class _Channels:
    """Channel counts with which each pool or slice runs: a block has a fixed number, or one block stands for each.

    Attributes:
        here: By name, at the size of the inputs, in either mode; calls that are no sites (global ones) too.
    """

    def __init__(self, seen: dict[Mode, list[Operation]], elsewhere: dict[str, set[int]]) -> None:
        """Collect them; `elsewhere` holds those at another size, in eval mode."""
        self.here: dict[str, set[int]] = defaultdict(set)
        for op in (op for ops in seen.values() for op in ops if _has_block(op)):
            self.here[op.name].add(op.geometry.in_channels)
        self._in_eval: dict[str, set[int]] = defaultdict(set)
        for op in seen["eval"]:
            self._in_eval[op.name].add(op.geometry.in_channels)
        self._elsewhere = elsewhere

    def several(self, name: str) -> tuple[int, ...]:
        """Give the counts of a pool where there is more than one; else nothing."""
        found = self.here.get(name, ())
        return tuple(sorted(found)) if len(found) > 1 else ()

    def depend_on_size(self, name: str) -> str:
        """List the counts where another size brings one that is new, or lacks one; else nothing."""
        here, elsewhere = self.here.get(name, set()), self._elsewhere.get(name, set())
        if not here or not elsewhere or not (elsewhere - here or self._in_eval.get(name, set()) - elsewhere):
            return ""
        return ", ".join(map(str, sorted(here | elsewhere)))


def _has_block(op: Operation) -> bool:
    """Whether a block for it would hold weights per channel that depend on nothing but the channels that come in."""
    return op.operator != "conv" and (op.called or op.place is not None)


def _is_same_window(one: Operation, other: Operation) -> bool:
    """Whether two calls run the same window; a pool may do so over other channels."""
    if one.operator in {"conv", "slice"}:
        return one.geometry == other.geometry
    free = {"in_channels": 1, "out_channels": 1}
    return one.geometry.model_copy(update=free) == other.geometry.model_copy(update=free)


def _sites(
    seen: dict[Mode, list[Operation]], facts: ModuleFacts, census: Census, elsewhere: dict[str, set[int]]
) -> tuple[Site, ...]:
    """Join the calls of each called module, and number the functional calls of each owner."""
    channels = _Channels(seen, elsewhere)
    groups: dict[str, list[tuple[Mode, Operation]]] = defaultdict(list)
    for mode, operations in seen.items():
        numbers: Counter[str] = Counter()
        for op in operations:
            if judge(op) != SITE:
                continue
            if op.called or op.place is not None:
                groups[op.name].append((mode, op))
            else:
                operation = f"{op.operator}:{numbers[f'{op.owner}#{op.operator}']}"
                numbers[f"{op.owner}#{op.operator}"] += 1
                groups[f"{op.owner}#{operation}"].append((mode, op))
    mixed = _other_calls(seen, census)
    return tuple(_site(name, calls, facts, census, channels, mixed) for name, calls in groups.items())


def _other_calls(seen: dict[Mode, list[Operation]], census: Census) -> set[tuple[str, str]]:
    """Give the expressions, by owner, that also run as something that is no site."""
    plain = {(op.owner, op.place.operation) for ops in seen.values() for op in ops if op.place and judge(op) != SITE}
    return plain | census.plain_convs


def _site(  # noqa: PLR0913 - what was seen of one site, and what is known of all
    name: str,
    calls: list[tuple[Mode, Operation]],
    facts: ModuleFacts,
    census: Census,
    channels: _Channels,
    mixed: set[tuple[str, str]],
) -> Site:
    first = calls[0][1]
    operation = "" if first.called else name.split("#", 1)[1]
    modes = tuple(mode for mode in MODES if any(m == mode for m, _ in calls))
    shapes = tuple(_at_batch_1(op.call, mode) for mode, op in calls if mode == modes[0])
    obstacles = facts.obstacles(first.owner) if first.called else _call_obstacles(calls)
    if (first.owner, operation) in mixed:
        obstacles += ("its expression also runs as something that does not downsample",)
    if not all(_is_same_window(first, op) for _, op in calls):
        obstacles += ("it runs with different windows or channel counts from call to call, or from mode to mode",)
    elif counts := channels.depend_on_size(name):
        obstacles += (f"its number of channels depends on the input size ({counts})",)
    return Site(
        path=first.owner,
        operation=operation,
        expression=first.place.expression if first.place is not None else "",
        operator=cast("Operator", first.operator),  # an adaptive pool is no site
        type_name=first.type_name,
        parent=facts.parent(first.owner) if first.called else "",
        geometry=first.geometry,
        calls=shapes,
        aliases=facts.aliases(first.owner),
        constants=facts.constants(first.owner) if first.called else {},
        channels=channels.several(name),
        modes=modes,
        inside=first.inside,
        obstacles=obstacles,
        macs=census.macs.get(first.owner, 0) if first.called else _call_macs(first, shapes),
        axes=first.axes,
        starts=first.starts,
        rank=first.rank,
    )


def _call_macs(first: Operation, calls: tuple[Call, ...]) -> int:
    """Give the multiply-accumulates of a functional convolution; its owner may run others too."""
    return sum(first.geometry.macs(call.output) for call in calls) if first.operator == "conv" else 0


def _call_obstacles(calls: list[tuple[Mode, Operation]]) -> tuple[str, ...]:
    """Give the reasons, each once, why the expression of a functional call cannot be edited."""
    return tuple(dict.fromkeys(op.obstacle for _, op in calls if op.obstacle))


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
