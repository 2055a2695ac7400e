"""A network at the level at which people draw it: stages of blocks, in the order in which they run.

Nothing but the tree of modules and the calls of one forward pass is known. A module is opened, and what it holds is
shown in its place, where it is the network itself, a container (of blocks, or a long one), one whose blocks are called
one after the other, or so large a share of the network that it hides the rest. Everything else is one part.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from spdify.graph.tracer import BLOCKS_PACKAGE
from spdify.records import MAX_PARTS, Part

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from spdify.graph.census import Census
    from spdify.graph.owners import ModuleCall

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LONG = 8  # layers in a row from which they are shown one by one
LARGE = 0.4  # share of a network's layers that one part may hide, in networks of at least `MANY`
MANY = 24
END = math.inf


def parts_of(model: nn.Module, census: Census, opened: Collection[str] | None = None) -> tuple[Part, ...]:
    """Split a network into parts; their costs add up to the whole.

    Args:
        model: The network.
        census: Of one forward pass at batch 1 in eval mode.
        opened: Paths of the modules to open, as `opened_paths` gives them for this network or for the one that it was
            made from; None to find them.
    """
    opened = opened_paths(model, census) if opened is None else opened
    found = list(_unopened(model, opened))
    order = _order(census)
    found.sort(key=lambda item: order.get(item[0], END))
    places = {path for path, _ in found}
    macs, moved = (_by_part(sums, places) for sums in (census.macs, census.activation_bytes))
    inside: dict[str, list[ModuleCall]] = defaultdict(list)
    for path, call in census.calls.items():
        inside[_part_around(path, places)].append(call)
    seen: set[int] = set()
    parts = []
    for path, module in found:
        if path not in order and next(module.parameters(), None) is None:
            continue  # not run, and nothing is lost with it
        calls = inside[path]
        parts.append(
            Part(
                path=path,
                type_name=type(module).__name__,
                stage=_stage(path, opened, model),
                # A module whose forward is called past its hooks is seen by what it calls.
                input=calls[0].input if calls else None,
                output=(census.calls.get(path) or calls[-1]).output if calls else None,
                params=_new_params(module, seen),
                macs=macs[path],
                activation_bytes=moved[path],
            )
        )
    between = Part(
        path="", type_name=type(model).__name__, params=_new_params(model, seen), macs=macs[""],
        activation_bytes=moved[""],
    )  # fmt: skip
    return (*parts, between)


def shown_parts(model: nn.Module, census: Census, opened: Collection[str] | None = None) -> tuple[Part, ...]:
    """Give the parts for a report; none of a network that has more of them than anybody reads."""
    parts = parts_of(model, census, opened)
    return parts if len(parts) <= MAX_PARTS else ()


def opened_paths(model: nn.Module, census: Census) -> frozenset[str]:
    """Give the paths of the modules that are shown as what they hold."""
    layers = sum(1 for module in model.modules() if _is_leaf(module))
    opened: set[str] = {""}
    waiting = [(name, child) for name, child in model.named_children()]
    while waiting:
        path, module = waiting.pop()
        if _is_leaf(module):
            continue
        held = sum(1 for part in module.modules() if _is_leaf(part))
        large = layers >= MANY and held > LARGE * layers
        if large or _is_row(module) or _runs_in_turn(module, path, census):
            opened.add(path)
            waiting += [(f"{path}.{name}", child) for name, child in module.named_children()]
    return frozenset(opened)


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module is a layer: it holds no others, or is one of spdify's own."""
    return type(module).__module__.startswith(BLOCKS_PACKAGE) or next(module.children(), None) is None


def _is_row(module: nn.Module) -> bool:
    """Whether a module is a container of blocks, or of many layers; a few layers in a row are one part."""
    if not isinstance(module, CONTAINERS):
        return False
    children = list(module.children())
    return any(not _is_leaf(child) for child in children) or len(children) > LONG


def _runs_in_turn(module: nn.Module, path: str, census: Census) -> bool:
    """Whether it holds blocks of one class that are called one after the other: directly, or in a container."""
    if _is_chain(module, path, census):
        return True
    held = [(f"{path}.{name}", child) for name, child in module.named_children() if isinstance(child, nn.Sequential)]
    return any(_is_chain(child, where, census) for where, child in held)


def _is_chain(module: nn.Module, path: str, census: Census) -> bool:
    """Whether a module holds blocks of one class and no layers, and each takes what the one before gave.

    A block has several layers with weights: a convolution with its norm is none.
    """
    blocks = [(f"{path}.{name}", child) for name, child in module.named_children() if not _is_leaf(child)]
    if len(blocks) < 2 or len({type(child) for _, child in blocks}) > 1:  # noqa: PLR2004 - one is no chain
        return False
    if any(_is_leaf(child) and next(child.parameters(), None) is not None for child in module.children()):
        return False
    if any(isinstance(child, CONTAINERS) or _weights(child) < 2 for _, child in blocks):  # noqa: PLR2004
        return False
    calls = [census.calls.get(where) for where, _ in blocks]
    pairs = pairwise(calls)
    return all(a is not None and b is not None and a.output == b.input for a, b in pairs)


def _weights(module: nn.Module) -> int:
    """Count matrices and kernels."""
    return sum(parameter.dim() > 1 for parameter in module.parameters())


def _unopened(module: nn.Module, opened: Collection[str], path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Give the outermost modules that are not opened, each once."""
    seen: set[int] = set()
    waiting = [(path, module)]
    while waiting:
        where, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if where in opened and not type(part).__module__.startswith(BLOCKS_PACKAGE):
            waiting += [(f"{where}.{name}" if where else name, child) for name, child in part.named_children()][::-1]
        else:
            yield where, part


def _order(census: Census) -> dict[str, int]:
    """Give when each module, or the first that it holds, was called."""
    order: dict[str, int] = {}
    for number, path in enumerate(census.calls):
        names = path.split(".")
        for end in range(1, len(names) + 1):
            order.setdefault(".".join(names[:end]), number)
    return order


def _stage(path: str, opened: Collection[str], model: nn.Module) -> str:
    """Give the outermost opened module around a part that holds blocks and not, in turn, stages of several."""
    names = path.split(".")[:-1]
    around = [".".join(names[:end]) for end in range(1, len(names) + 1)]
    for where in around:
        children = list(model.get_submodule(where).named_children())
        rows = [child for name, child in children if f"{where}.{name}" in opened and len(list(child.children())) > 1]
        # A stage may hold its blocks in a container of their own, beside what comes before or after them.
        if not rows or (len(rows) == 1 and type(rows[0]) is nn.Sequential and len(children) > 1):
            return where
    return around[-1] if around else ""


def _new_params(module: nn.Module, seen: set[int]) -> int:
    """Count the parameters that no part before has, and note them."""
    mine = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
    seen.update(mine)
    return sum(mine.values())


def _part_around(path: str, places: Collection[str]) -> str:
    """Give the part that a module lies in; of what is opened, nothing."""
    while path and path not in places:
        path = path.rpartition(".")[0]
    return path


def _by_part(by_owner: Mapping[str, int], places: Collection[str]) -> dict[str, int]:
    """Add up a cost by part; what opened modules compute themselves is under an empty path."""
    sums: dict[str, int] = defaultdict(int)
    for owner, number in by_owner.items():
        sums[_part_around(owner, places)] += number
    return sums
