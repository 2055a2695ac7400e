"""A change of channels followed through a model: to whom it goes, and where it cannot go on.

It starts at sites whose block puts out more channels than the module before, goes through carriers, and ends in
consumers (`spdify.graph.carriers`). Where two tensors meet entry by entry, both must have become more in the same way;
a gate (one number per channel) that has not follows, when nothing else reads it. Where the change cannot go on, every
site that has a part in it is stopped, with the reason, and the others are followed once more.

A model is followed in eval and in train mode; what they say of a module must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from spdify.graph.walk import Reached, Start, StoppedError, Walk
from spdify.records import Adjustment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spdify.graph.carriers import Step
    from spdify.graph.obstacles import ModuleFacts
    from spdify.graph.trace import Flow
    from spdify.records import Site, TensorChange


@dataclass(frozen=True)
class Propagation:
    """Where the changes of channels go.

    Attributes:
        adjustments: What becomes of every module that is reached, in the order of the walk.
        stopped: By name of the site, why its change cannot go on.
    """

    adjustments: tuple[Adjustment, ...] = ()
    stopped: dict[str, str] = field(default_factory=dict)


def propagate(  # noqa: PLR0913 - the flows, and what blocks are put where
    flows: Sequence[Flow],
    facts: ModuleFacts,
    starts: Mapping[str, Start],
    replaced: Mapping[str, Site],
    edited: frozenset[str] = frozenset(),
    followed: frozenset[str] = frozenset(),
) -> Propagation:
    """Follow the channels that leave sites.

    Args:
        flows: Of both modes.
        facts: What is known of the modules.
        starts: By path of a called module, the channels that are to leave it, or its block.
        replaced: By path, the sites of all called modules that blocks take the place of.
        edited: Paths of the modules in whose code blocks take the place of calls.
        followed: Paths of the modules that a block comes behind.
    """
    going = dict(starts)
    stopped: dict[str, str] = {}
    while going:
        try:
            reached = Reached()
            for flow in flows:
                Walk(flow, going, reached, edited, followed)
            _require_seen(going, reached)
            return Propagation(_adjustments(reached, facts, replaced), stopped)
        except StoppedError as error:
            stopped |= dict.fromkeys(error.sites, error.reason)
            going = {path: start for path, start in going.items() if start.site not in stopped}
    return Propagation(stopped=stopped)


def _require_seen(going: Mapping[str, Start], reached: Reached) -> None:
    unseen = [start.site for path, start in going.items() if path not in reached.started]
    if unseen:
        raise StoppedError("torch.fx cannot follow the code around it", unseen)


def _adjustments(reached: Reached, facts: ModuleFacts, replaced: Mapping[str, Site]) -> tuple[Adjustment, ...]:
    found = (_adjustment(path, steps, reached, facts, replaced) for path, steps in reached.steps.items())
    return tuple(adjustment for adjustment in found if adjustment is not None)


def _adjustment(
    path: str, steps: list[Step], reached: Reached, facts: ModuleFacts, replaced: Mapping[str, Site]
) -> Adjustment | None:
    """Put together what all calls of one module ask of it.

    Raises:
        StoppedError: They do not agree, or the module cannot be changed.
    """
    module, sites = facts.module(path), reached.sites[path]
    changes_nothing = path not in replaced and not any(step.tensors or step.numbers or step.block for step in steps)
    if changes_nothing and any(step != steps[0] for step in steps):
        return None  # an activation that many share
    taking = _only([step for step in steps if step.role != "follower"], path, sites)
    giving = _only([step for step in steps if step.role == "follower"], path, sites)
    found = [step for step in (taking, giving) if step is not None]
    tensors: tuple[TensorChange, ...] = tuple(dict.fromkeys(change for step in found for change in step.tensors))
    numbers = {name: value for step in found for name, value in step.numbers.items()}
    if path in replaced and replaced[path].operator != "conv" and (layout := found[0].out) is not None:
        if replaced[path].channels:
            raise StoppedError(f"{path} runs with different numbers of channels", sites)
        # Unlike the pool, its block has a number of channels, and weights of its own.
        tensors, numbers = (), dict.fromkeys(("in_channels", "out_channels"), layout.new)
    if any(not isinstance(getattr(module, change.name, None), Tensor) for change in tensors):
        raise StoppedError(f"{path or 'the model'} makes a constant with as many channels in its code", sites)
    changes = bool(tensors or numbers or found[0].block)
    touched = {path, *(f"{path}.{change.name}" for change in tensors)}
    if changes and (touched & reached.plain or (taking is not None and path in reached.untaken)):
        raise StoppedError(f"{path} also runs with as many channels as before", sites)
    if changes and (bonds := facts.bonds(path, own_reads=not numbers)):
        raise StoppedError(f"{path} cannot be changed: {'; '.join(bonds)}", sites)
    if taking is not None and giving is not None and taking.role == "carrier":
        raise StoppedError(f"{path} is reached from both sides", sites)
    return Adjustment(
        path=path, aliases=facts.aliases(path), type_name=type(module).__name__, role=found[0].role, tensors=tensors,
        numbers=numbers, block=found[0].block, takes=found[0].taken, gives=found[-1].out, sites=tuple(sorted(sites)),
    )  # fmt: skip


def _only(steps: list[Step], path: str, sites: set[str]) -> Step | None:
    """Give the step that all calls agree on; None without any."""
    if any(step != steps[0] for step in steps):
        raise StoppedError(f"{path} runs with different numbers of channels", sites)
    return steps[0] if steps else None
