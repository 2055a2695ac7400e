"""The sites of a model: both eyes, in both modes, put together and compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import parametrize

from spdify.graph.census import Census, take_census
from spdify.graph.operations import SITE, Operation, judge
from spdify.graph.trace import Trace, trace_model
from spdify.graph.windows import module_operator
from spdify.records import Call, LeftAlone, Mode, Site

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spdify.records import Inputs

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
        seen[mode], disagreement = _compare(traces[mode], censuses[mode], mode)
        both += disagreement
    facts = _ModuleFacts(model, traces["eval"].reads | traces["train"].reads)
    sites = _sites(seen, facts, censuses["eval"])
    left = [op for op in seen["eval"] if judge(op) != SITE]
    return Survey(sites, _left_alone(left), tuple(both), censuses["eval"])


def _compare(trace: Trace, census: Census, mode: Mode) -> tuple[list[Operation], list[str]]:
    """Give what the trace saw, with what only the census saw behind it, and the disagreements in words."""
    by_trace = Counter(op.key for op in trace.operations)
    by_census = Counter(op.key for op in census.operations)
    words = []
    extra = []
    for op in _surplus(census.operations, by_trace):
        reason = next((r for path, r in trace.unopened.items() if f"{op.owner}.".startswith(f"{path}.")), None)
        if reason is None and judge(op) == SITE:
            words.append(f"{mode}: the forward pass runs {op.description}, the trace does not show it")
        extra.append(op)
    words += [
        f"{mode}: the trace shows {op.description}, the forward pass does not run it"
        for op in _surplus(trace.operations, by_census)
        if judge(op) == SITE
    ]
    return trace.operations + extra, words


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


class _ModuleFacts:
    """What makes replacing a module unsafe, and under which names it is registered."""

    def __init__(self, model: nn.Module, reads: set[str]) -> None:
        self._modules = dict(model.named_modules())
        self._reads = reads
        self.paths: dict[int, list[str]] = defaultdict(list)
        self._holders: dict[int, list[str]] = defaultdict(list)
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths[id(module)].append(path)
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                self._holders[id(parameter)].append(f"{path}.{name}")

    def aliases(self, path: str) -> tuple[str, ...]:
        """Other names of the module at `path`."""
        return tuple(p for p in self.paths[id(self._modules[path])] if p != path)

    def obstacles(self, path: str) -> tuple[str, ...]:
        """Reasons not to replace the called module at `path`."""
        module = self._modules[path]
        found = []
        if parametrize.is_parametrized(module):
            found.append("its weight is parametrized (torch.nn.utils.parametrize)")
        elif (own := _own_forward(module)) is not None:
            found.append(own)
        if module._forward_pre_hooks or module._forward_hooks:  # noqa: SLF001 - torch has no public list of hooks
            found.append("it has forward hooks (old weight norm, pruning, or your own)")
        if module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001
            found.append("it has backward hooks")
        if getattr(module, "return_indices", False):
            found.append("it returns indices")
        for name, parameter in module.named_parameters(recurse=False):
            others = [holder for holder in self._holders[id(parameter)] if holder != f"{path}.{name}"]
            if others:
                found.append(f"its {name} is shared with {', '.join(others)}")
            if f"{path}.{name}" in self._reads:
                found.append(f"its {name} is read from outside the module")
        return tuple(found)


def _own_forward(module: nn.Module) -> str | None:
    """Say that a subclass computes something of its own; None when it is the torch.nn class in other clothes."""
    kind = type(module)
    base = next(
        (b for b in kind.__mro__ if b.__module__.startswith("torch.nn.modules.") and module_operator(module) is not None),
        None,
    )
    if base is None or kind is base:
        return None
    if any(name in vars(k) for k in kind.__mro__[: kind.__mro__.index(base)] for name in ("forward", "_conv_forward")):
        return f"{kind.__name__} computes more than {base.__name__} (its own forward)"
    return None


def _sites(seen: dict[Mode, list[Operation]], facts: _ModuleFacts, census: Census) -> tuple[Site, ...]:
    """Join the calls of each called module, and number the functional calls of each owner."""
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
    return tuple(_site(name, calls, facts, census) for name, calls in groups.items())


def _site(name: str, calls: list[tuple[Mode, Operation]], facts: _ModuleFacts, census: Census) -> Site:
    first = calls[0][1]
    modes = tuple(mode for mode in MODES if any(m == mode for m, _ in calls))
    shapes = tuple(op.call for mode, op in calls if mode == modes[0])
    obstacles = facts.obstacles(first.owner) if first.called else ()
    if any(op.geometry != first.geometry for _, op in calls):
        obstacles += ("it runs with different windows or channel counts from call to call, or from mode to mode",)
    return Site(
        path=first.owner,
        operation="" if first.called else name.split("#", 1)[1],
        operator=first.operator,  # type: ignore[arg-type] - an adaptive pool is no site
        type_name=first.type_name,
        geometry=first.geometry,
        calls=tuple(Call(input=(1, *c.input[1:]), output=(1, *c.output[1:])) for c in shapes),
        aliases=facts.aliases(first.owner) if first.called else (),
        modes=modes,
        inside=first.inside,
        obstacles=obstacles,
        macs=census.macs.get(first.owner, 0) if first.called else 0,
    )


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
