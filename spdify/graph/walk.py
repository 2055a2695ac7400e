"""One flow walked from its inputs to its outputs, with the channels that became more."""

from __future__ import annotations

import math
import operator as python_operator
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from torch import fx, nn

from spdify.graph import flow_functions as functions
from spdify.graph.carriers import Step, StopError, follow_through, is_depthwise, require_untouched, step_through
from spdify.graph.tracer import BLOCKS_PACKAGE
from spdify.records import Layout, TensorChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spdify.graph.trace import Flow
    from spdify.records import Shape

CHANNEL_AXIS = 1
FLAT = 2  # axes of a flattened map


@dataclass(frozen=True)
class Carried:
    """Channels of one tensor that became more.

    Attributes:
        layout: How.
        sites: Names of the sites whose change it is.
    """

    layout: Layout
    sites: frozenset[str]


@dataclass(frozen=True)
class Start:
    """Where a change begins: a site's name, and the channels that leave its block.

    `own` says that no block makes them: the module itself gets more filters.
    """

    site: str
    layout: Layout
    own: bool = False


class StoppedError(Exception):
    """A change stops: the reason, and the sites whose change it is."""

    def __init__(self, reason: str, sites: Iterable[str]) -> None:
        """Take reason and names."""
        super().__init__(reason)
        self.reason, self.sites = reason, frozenset(sites)


@dataclass
class Reached:
    """What a walk asks of the model, by path of the module.

    Attributes:
        steps: What becomes of each module that is reached, once per call and side (input, output).
        sites: Names of the sites that reach it.
        plain: Paths of the modules and tensors that something runs or reads with as many channels as before.
        started: Paths of the sites that the walk has met.
        untaken: Paths of those that take as many channels as before in some call.
    """

    steps: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    sites: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    plain: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    untaken: set[str] = field(default_factory=set)

    def add(self, path: str, step: Step, sites: Iterable[str]) -> None:
        """Note a step."""
        self.steps[path].append(step)
        self.sites[path] |= set(sites)


class Walk:
    """Walks one flow; the result is in `reached`."""

    def __init__(
        self,
        flow: Flow,
        starts: Mapping[str, Start],
        reached: Reached,
        edited: frozenset[str] = frozenset(),
        followed: frozenset[str] = frozenset(),
    ) -> None:
        """Take the flow and, by path, where changes begin.

        `edited` are the owners of calls that become blocks, `followed` the modules that a block comes behind.

        Raises:
            StoppedError: A change cannot go on.
        """
        self._flow, self._starts, self.reached, self._edited = flow, starts, reached, edited
        self._followed = followed
        self._carried: dict[fx.Node, Carried] = {}
        self._touched: set[fx.Node] = set()
        self._sizes: dict[fx.Node, fx.Node] = {}
        for node in flow.graph.nodes:
            self._visit(node)
        for node in flow.graph.nodes:
            if node.op in {"call_module", "get_attr"} and node not in self._touched:
                reached.plain.add(flow.full_path(node.target))

    # One node.

    def _visit(self, node: fx.Node) -> None:
        taken = [self._carried[arg] for arg in node.all_input_nodes if arg in self._carried]
        if self._followed:
            self._require_unfollowed(node)
        if node.op == "call_module":
            self._visit_module(node, taken)
        elif sizes := [self._sizes[arg] for arg in node.all_input_nodes if arg in self._sizes]:
            self._visit_size(node, sizes[0])
        elif taken:
            if node.op == "output":
                where = f"of {self._flow.path}" if self._flow.path else "of the model"
                self._stop(f"it is an output {where}", taken)
            self._visit_function(node, taken)

    def _stop(self, reason: str, carried: Iterable[Carried]) -> NoReturn:
        raise StoppedError(reason, {site for one in carried for site in one.sites})

    def _visit_module(self, node: fx.Node, taken: list[Carried]) -> None:
        path = self._flow.full_path(str(node.target))
        start = self._starts.get(path)
        out: Carried | None = None
        if taken:
            only = taken[0]
            if len(taken) > 1 or not node.args or self._carried.get(node.args[0]) is not only:  # type: ignore[arg-type]
                self._stop(f"{path} takes several tensors", taken)
            out = self._through_module(node, path, only)
        if start is not None:
            self.reached.started.add(path)
            if not taken:  # of a module that is called twice, the other call may have more
                self.reached.untaken.add(path)
            if start.own:
                module = self._flow.module(str(node.target))
                self.reached.add(path, _widened(module, path, start.layout), {start.site})
            out = self._begin(path, start, taken, out)
        if out is not None:
            self._carried[node] = out
            self._touched.add(node)

    def _through_module(self, node: fx.Node, path: str, taken: Carried) -> Carried | None:
        module = self._flow.module(str(node.target))
        self._touched.add(node)
        try:
            require_untouched(module)
        except StopError as error:
            self._stop(f"{path} ({type(module).__name__}): {error}", [taken])
        if type(module) is nn.Flatten:
            return self._flattened(node, taken)
        if type(module).__module__.startswith(BLOCKS_PACKAGE):
            self._stop(f"{path} is a block of spdify: convert the original with all rulebooks at once", [taken])
        if type(module) is nn.Linear and len(self._shape(node.args[0])) != FLAT:
            self._stop(f"{path} does not read the channels along the last axis", [taken])
        if not _fits(type(module).__name__, len(self._shape(node.args[0]))):
            self._stop(f"{path} takes the channels for an axis of a map without batch", [taken])
        try:
            step = step_through(module, taken.layout)
        except StopError as error:
            self._stop(f"{path} ({type(module).__name__}): {error}", [taken])
        self.reached.add(path, replace(step, taken=taken.layout), taken.sites)
        return Carried(step.out, taken.sites) if step.out is not None else None

    def _begin(self, path: str, start: Start, taken: list[Carried], passed: Carried | None) -> Carried:
        """Give what leaves a site's block; a depthwise one multiplies what came in."""
        if passed is None:
            return Carried(start.layout, frozenset({start.site}))
        own = start.layout.copies
        if own is None or start.layout.how != "select" or passed.layout.how != "select":
            self._stop(f"{path} changes the channels itself", taken)
        runs = tuple((count, copies * own) for count, copies in passed.layout.runs)
        return Carried(passed.layout.model_copy(update={"runs": runs}), passed.sites | {start.site})

    def _visit_size(self, node: fx.Node, of: fx.Node) -> None:
        """Follow the sizes of a changed tensor: its number of channels must not be read."""
        picks = node.op == "call_function" and node.target is python_operator.getitem
        if node.users and not (picks and not _reads_axis(node.args[1], len(self._shape(of)))):
            self._stop(
                f"the code of {self._owner(node) or 'the model'} reads the number of channels", [self._carried[of]]
            )

    def _visit_function(self, node: fx.Node, taken: list[Carried]) -> None:
        target, first = node.target, taken[0]
        self._require_unedited(node, taken)
        if target is getattr or target in functions.SIZES:
            self._visit_attribute(node, first)
        elif target in functions.CONCATENATING:
            self._carried[node] = self._concatenated(node, taken)
        elif target in functions.BINARY:
            self._carried[node] = self._combined(node, taken)
        elif len(taken) > 1 or not node.args or self._carried.get(node.args[0]) is not first:  # type: ignore[arg-type]
            self._stop(f"{self._describe(node)} is not known to work on each channel by itself", taken)
        elif target in functions.POINTWISE and self._takes_more(node):
            self._stop(f"{self._describe(node)} takes a second tensor", taken)
        elif (out := self._through_function(node, first)) is not None:
            self._carried[node] = out

    def _require_unfollowed(self, node: fx.Node) -> None:
        """Stop where changed channels leave a module that a block comes behind: it has a number of channels."""
        around = self._around(node)
        for arg in node.all_input_nodes:
            if arg in self._carried and (left := (self._around(arg) - around) & self._followed):
                self._stop(f"a block comes behind {min(left)}, and is not adjusted", [self._carried[arg]])

    def _around(self, node: fx.Node) -> set[str]:
        """Give the paths of all modules that a node is in, the module itself where one is called."""
        stack = node.meta.get("nn_module_stack", {}).values()
        names = {self._flow.full_path(name) for name, _ in stack}
        return names | ({self._flow.full_path(str(node.target))} if node.op == "call_module" else set())

    def _require_unedited(self, node: fx.Node, taken: list[Carried]) -> None:
        """Stop before a functional call that becomes a block, which has a number of channels and is not adjusted."""
        target = node.target
        windows = target in functions.LINEAR_SPATIAL or target in functions.OTHER_SPATIAL
        if (windows or target is python_operator.getitem) and self._owner(node) in self._edited:
            self._stop(f"{self._describe(node)} becomes a block, which is not adjusted", taken)

    def _visit_attribute(self, node: fx.Node, taken: Carried) -> None:
        """`x.shape`, `x.dtype`, `x.size(2)`: sizes are followed, all else is harmless."""
        whole = node.target is not getattr and len(node.args) == 1 and not node.kwargs
        if whole or (node.target is getattr and node.args[1] == "shape"):
            self._sizes[node] = node.args[0]  # type: ignore[assignment]  # the tensor, a node
        elif node.target is getattr:
            if node in self._flow.shapes:
                self._stop(f"{self._describe(node)} is not known to work on each channel by itself", [taken])
        elif _reads_axis(
            node.args[1] if len(node.args) > 1 else node.kwargs.get("dim"), len(self._shape(node.args[0]))
        ):
            self._stop(f"the code of {self._owner(node) or 'the model'} reads the number of channels", [taken])

    # Functions of one tensor.

    def _through_function(self, node: fx.Node, taken: Carried) -> Carried | None:
        target, selecting = node.target, taken.layout.how == "select"
        if node not in self._flow.shapes:
            self._stop(f"{self._describe(node)} gives no tensor", [taken])
        if target in functions.COPYING or (selecting and target in functions.POINTWISE):
            return taken
        spatial = target in functions.LINEAR_SPATIAL or target in functions.PADDING
        spatial = spatial or functions.name_of(target) == "squeeze"
        if spatial or (selecting and target in functions.OTHER_SPATIAL):
            return self._same_channels(node, taken)
        if target in functions.REDUCING and (selecting or functions.name_of(target) in {"mean", "sum"}):
            return self._reduced(node, taken)
        if target in functions.FLATTENING:
            return self._flattened(node, taken)
        if target is not python_operator.getitem:
            self._stop(f"{self._describe(node)} is not known to work on each channel by itself", [taken])
        return self._indexed(node, taken)

    def _same_channels(self, node: fx.Node, taken: Carried) -> Carried:
        """Let a function of each channel's map pass, as long as the channels stay where they were."""
        before, after = self._shape(node.args[0]), self._shape(node)
        moved = node.target in functions.PADDING and not _pads_map(node, len(before))
        moved = moved or not _fits(functions.name_of(node.target), len(before))
        if moved or len(after) < FLAT or before[:FLAT] != after[:FLAT] or taken.layout.inner != 1:
            self._stop(f"{self._describe(node)} changes the channel axis", [taken])
        return taken

    def _reduced(self, node: fx.Node, taken: Carried) -> Carried:
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        rank = len(self._shape(node.args[0]))
        listed = axes if isinstance(axes, (list, tuple)) else (axes,)
        if any(not isinstance(axis, int) or axis % rank < FLAT for axis in listed):
            self._stop(f"{self._describe(node)} sums over channels", [taken])
        return taken

    def _indexed(self, node: fx.Node, taken: Carried) -> Carried:
        """`x[:, :, 0, 0]`, `x[:, :, None]`: batch and channels whole."""
        index = node.args[1]
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) < FLAT or any(part != slice(None) for part in parts[:FLAT]):
            self._stop(f"{self._describe(node)} picks channels", [taken])
        return taken

    def _flattened(self, node: fx.Node, taken: Carried) -> Carried:
        """A map as one row per sample, when the code leaves its length open."""
        before, after = self._shape(node.args[0]), self._shape(node)
        if before == after:  # a flattened one again; a size that the code fixes would not be the same afterwards
            fixed = node.op == "call_method" and node.target in {"view", "reshape"} and not _is_open(node)
            if not fixed:
                return taken
        whole = len(after) == FLAT and before[0] == after[0] and taken.layout.inner == 1
        if not whole or (
            functions.name_of(node.target) != "flatten" and node.op != "call_module" and not _is_open(node)
        ):
            self._stop(f"{self._describe(node)} fixes the shape", [taken])
        positions = after[1] // max(before[1], 1)
        return Carried(taken.layout.model_copy(update={"inner": positions}), taken.sites)

    # Functions of several tensors.

    def _concatenated(self, node: fx.Node, taken: list[Carried]) -> Carried:
        parts = node.args[0] if node.args else node.kwargs.get("tensors")
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        rank = len(self._shape(node))
        if not isinstance(parts, (list, tuple)) or not isinstance(axis, int) or axis % rank != CHANNEL_AXIS:
            self._stop(f"{self._describe(node)} does not run along the channels", taken)
        if len({one.layout.how for one in taken}) > 1 or any(one.layout.inner != 1 for one in taken):
            self._stop(f"{self._describe(node)} joins channels that became more in different ways", taken)
        runs: list[tuple[int, int]] = []
        for part in parts:
            found = self._carried.get(part)
            runs += found.layout.runs if found is not None else [(self._shape(part)[CHANNEL_AXIS], 1)]
        layout = Layout(runs=_merged(runs), how=taken[0].layout.how)
        return Carried(layout, frozenset().union(*(one.sites for one in taken)))

    def _combined(self, node: fx.Node, taken: list[Carried]) -> Carried:
        """Two tensors entry by entry: equal changes, a number, or a gate that follows."""
        first = taken[0]
        everyone = Carried(first.layout, frozenset().union(*(one.sites for one in taken)))
        if any(one.layout != first.layout for one in taken):
            self._stop(f"{self._describe(node)} meets channels that became more in different ways", taken)
        ends = [
            (len(self._shape(arg)), self._shape(arg)[:FLAT][-1]) for arg in node.all_input_nodes if arg in self._carried
        ]
        if any(end != (len(self._shape(node)), self._shape(node)[CHANNEL_AXIS]) for end in ends):
            self._stop(f"{self._describe(node)} spreads the channels over another shape", taken)
        factors = [
            arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, fx.Node) and arg in self._carried
        ]
        linear = node.target in functions.SUMS or (node.target in functions.PRODUCTS and len(factors) == 1)
        if first.layout.how == "mean" and not linear:
            self._stop(f"{self._describe(node)} is not linear", taken)
        for arg in node.all_input_nodes:  # keywords too: torch.mul(x, other=gate)
            if arg not in self._carried:
                self._meet(node, arg, everyone)
        return everyone

    def _meet(self, node: fx.Node, partner: fx.Node, carried: Carried) -> None:
        """Have the partner of a changed tensor follow, unless it is the same for all channels."""
        if partner not in self._flow.shapes:
            return  # a number
        axis = CHANNEL_AXIS - (len(self._shape(node)) - len(self._shape(partner)))
        if axis < 0 or self._shape(partner)[axis] == 1:
            return
        if any(size != 1 for size in self._shape(partner)[axis + 1 :]):
            # It could, from the convolution that makes it; but that would widen whole residual trunks s² times.
            reason = "has a partner with as many channels as before, a map: only gates follow"
            self._stop(f"{self._describe(node)} {reason}", [carried])
        try:
            self._follow(partner, axis, carried)
        except StopError as error:
            self._stop(f"{self._describe(node)} has a partner that cannot follow: {error}", [carried])

    # Gates that follow: one number per channel, from a layer or a parameter.

    def _follow(self, node: fx.Node, axis: int, carried: Carried) -> None:
        """Have a tensor repeated that has as many channels as before.

        Raises:
            StopError: It cannot be.
        """
        if node in self._carried:
            if self._carried[node].layout != carried.layout:
                raise StopError("it became more in another way")
            return
        if node.op == "get_attr":
            self._follow_tensor(node, axis, carried)
        elif axis != CHANNEL_AXIS or node.op in {"placeholder", "output"}:
            raise StopError(f"{self._describe(node)} is no layer of the model")
        elif len(node.users) != 1:
            raise StopError(f"{self._describe(node)} is used elsewhere too")
        elif node.op == "call_module":
            self._follow_module(node, carried)
        else:
            self._follow_function(node, carried)
        self._carried[node] = carried
        self._touched.add(node)

    def _follow_tensor(self, node: fx.Node, axis: int, carried: Carried) -> None:
        owner, _, name = self._flow.full_path(str(node.target)).rpartition(".")
        change = TensorChange(name=name, axis=axis, change="repeat", layout=carried.layout)
        self.reached.add(owner, Step("follower", carried.layout, (change,)), carried.sites)

    def _follow_module(self, node: fx.Node, carried: Carried) -> None:
        path, module = self._flow.full_path(str(node.target)), self._flow.module(str(node.target))
        if path in self._starts:
            raise StopError(f"{path} is a site that changes its channels otherwise")
        require_untouched(module)
        if type(module) is nn.Linear and len(self._shape(node)) != FLAT:
            raise StopError(f"{path} does not put out the channels along the last axis")
        if type(module) is nn.Linear or (isinstance(module, nn.modules.conv._ConvNd) and not is_depthwise(module)):  # noqa: SLF001 - torch gives it no public name
            step = follow_through(module, carried.layout)
        else:
            step = step_through(module, carried.layout)
            if step.role != "carrier":
                raise StopError(f"{path} ({type(module).__name__}) cannot have its output repeated")
            self._follow(_tensor_argument(node), CHANNEL_AXIS, carried)
            step = replace(step, role="follower", taken=carried.layout)
        self.reached.add(path, step, carried.sites)

    def _follow_function(self, node: fx.Node, carried: Carried) -> None:
        target = node.target
        if target in functions.BINARY:
            for arg in node.all_input_nodes:
                if arg in self._flow.shapes:
                    axis = CHANNEL_AXIS - (len(self._shape(node)) - len(self._shape(arg)))
                    if axis >= 0 and self._shape(arg)[axis] != 1:
                        self._follow(arg, axis, carried)
            return
        if target in functions.REDUCING or target in functions.LINEAR_SPATIAL or target in functions.OTHER_SPATIAL:
            self._reduced(node, carried) if target in functions.REDUCING else self._same_channels(node, carried)
        elif target is python_operator.getitem:
            self._indexed(node, carried)
        elif target in functions.POINTWISE and self._takes_more(node):
            raise StopError(f"{self._describe(node)} takes a second tensor")
        elif target not in functions.POINTWISE and target not in functions.COPYING:
            raise StopError(f"{self._describe(node)} is not known to work on each channel by itself")
        self._follow(_tensor_argument(node), CHANNEL_AXIS, carried)

    # Words and shapes.

    def _takes_more(self, node: fx.Node) -> bool:
        """Whether a function of one tensor takes another that may differ from channel to channel: `clamp(x, min=y)`."""
        others = [arg for arg in node.all_input_nodes if arg is not node.args[0] and arg in self._flow.shapes]
        return any(math.prod(self._shape(arg)) != 1 for arg in others)

    def _shape(self, node: Any) -> Shape:  # noqa: ANN401 - what a node takes
        return self._flow.shapes.get(node, ())

    def _owner(self, node: fx.Node) -> str:
        stack = node.meta.get("nn_module_stack", {})
        return self._flow.full_path(next(reversed(stack.values()))[0] if stack else "")

    def _describe(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return self._flow.full_path(str(node.target))
        return f"{functions.name_of(node.target)} in {self._owner(node) or 'the model'}"


def _widened(module: nn.Module, path: str, layout: Layout) -> Step:
    """Give the step by which a convolution gets more filters, random ones beside its own."""
    step, seed = follow_through(module, layout), zlib.crc32(path.encode())
    drawn = tuple(
        change.model_copy(update={"change": "draw", "seed": seed}) if change.name == "weight" else change
        for change in step.tensors
    )
    return replace(step, tensors=drawn)


def _tensor_argument(node: fx.Node) -> fx.Node:
    """Give the tensor that a function or module takes first.

    Raises:
        StopError: It takes none.
    """
    if not node.args or not isinstance(node.args[0], fx.Node):
        raise StopError(f"{functions.name_of(node.target)} takes no tensor first")
    return node.args[0]


def _fits(name: str, rank: int) -> bool:
    """Whether what is called `...2d` is given a batch of maps: it takes a tensor of one axis less for one map."""
    dims = re.search(r"(\d)d", name)
    return dims is None or rank == int(dims[1]) + FLAT or (name == "BatchNorm1d" and rank == FLAT)


def _pads_map(node: fx.Node, rank: int) -> bool:
    """Whether a padding leaves batch and channels alone."""
    widths = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    return isinstance(widths, (list, tuple)) and len(widths) <= 2 * (rank - FLAT)


def _reads_axis(index: object, rank: int) -> bool:
    """Whether an index into the sizes of a tensor takes the number of channels in."""
    if isinstance(index, int):
        return index % rank == CHANNEL_AXIS
    if isinstance(index, slice) and all(end is None or isinstance(end, int) for end in (index.start, index.stop)):
        return CHANNEL_AXIS in range(*index.indices(rank))
    return True


def _is_open(node: fx.Node) -> bool:
    """Whether a view or reshape leaves the length of the rows open: `x.view(n, -1)`."""
    given = node.args[1:]
    sizes = given[0] if given and isinstance(given[0], (list, tuple)) else given
    return list(sizes[-1:]) == [-1]


def _merged(runs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join neighbouring runs of equal copies."""
    merged: list[tuple[int, int]] = []
    for count, copies in runs:
        if merged and merged[-1][1] == copies:
            merged[-1] = (merged[-1][0] + count, copies)
        else:
            merged.append((count, copies))
    return tuple(merged)
