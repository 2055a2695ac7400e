"""The parts of a network before and after, each beside its counterpart, and by stage."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from spdify.records import Inputs, Part, Report, Shape, Site

RELATED = 0.5  # share of parts in common from which networks are compared by path
FLAT = 8  # parts of a stage from which it is split by resolution
MAPS, TOKENS = 4, 3  # axes of a batch of maps, of tokens


@dataclass(frozen=True)
class Pair:
    """A part before and what stands at its place after, with their numbers in the report; None where there is none."""

    before: Part | None
    after: Part | None
    before_index: int | None = None
    after_index: int | None = None

    @property
    def part(self) -> Part:
        """The one after, or the one before where there is none."""
        part = self.after or self.before
        assert part is not None  # noqa: S101 - one of both is there
        return part

    def holds(self, site: Site) -> bool:
        """Whether a site, or the block that took its place, lies in it."""
        paths = [part.path for part in (self.before, self.after) if part is not None and part.path]
        own = (*site.block_paths, site.path, *site.aliases)
        return any(where == path or where.startswith(f"{path}.") for path in paths for where in own)


@dataclass(frozen=True)
class Stage:
    """Parts that belong together: of one stage of the network, and of one resolution where it has many."""

    name: str
    pairs: tuple[Pair, ...]

    def total(self, side: str, what: str) -> int:
        """Add up a cost of the parts on one side (`before`, `after`)."""
        return sum(getattr(part, what) for pair in self.pairs if (part := getattr(pair, side)) is not None)


@dataclass(frozen=True)
class Depth:
    """What leaves each part, in order: shorter side of its maps and channels; None where that is not known.

    Attributes:
        names: Of the parts.
        sides_before: Positions; of tokens, the side of a square map of as many.
        sides_after: Likewise.
        channels_before: Number of channels.
        channels_after: Likewise.
        read: By part, the channels behind the space-to-depth of a site in it that was replaced, the most of several.
        stages: Number of each stage's first part, with its name.
    """

    names: tuple[str, ...]
    sides_before: tuple[int | None, ...]
    sides_after: tuple[int | None, ...]
    channels_before: tuple[int | None, ...]
    channels_after: tuple[int | None, ...]
    read: dict[int, int] = field(default_factory=dict)
    stages: tuple[tuple[int, str], ...] = ()


def pairs_of(report: Report) -> tuple[Pair, ...]:
    """Put the parts side by side by their paths, in the order of both.

    Two networks that share no structure are put side by side by the resolution of their maps.
    """
    befores, afters = report.parts_before, report.parts_after
    if is_related(report):
        matcher = SequenceMatcher(None, [p.path for p in befores], [p.path for p in afters], autojunk=False)
        return _paired(report, matcher.get_opcodes())
    first, second = (_runs(parts, inputs) for parts, inputs in zip((befores, afters), both_inputs(report), strict=True))
    aligned = SequenceMatcher(None, [side for side, *_ in first], [side for side, *_ in second])
    spans = []
    for _, a, b, c, d in aligned.get_opcodes():
        for one, other in zip_longest(first[a:b], second[c:d]):
            _, i, j = one or (None, 0, 0)
            _, k, m = other or (None, 0, 0)
            spans.append(("", i, j, k, m))
    return _paired(report, spans)


def is_related(report: Report) -> bool:
    """Whether the networks have structure in common: most parts of the smaller one are in both, by path."""
    before, after = ({part.path for part in parts} for parts in (report.parts_before, report.parts_after))
    return len(before & after) >= RELATED * min(len(before), len(after))


def both_inputs(report: Report) -> tuple[Inputs | None, Inputs | None]:
    """Give what the networks were looked at with; None where that was not recorded."""
    found = report.origin.inputs if report.origin is not None else ()
    return (found[0], found[-1]) if found else (None, None)


def _paired(report: Report, spans: Sequence[tuple[str, int, int, int, int]]) -> tuple[Pair, ...]:
    befores, afters = report.parts_before, report.parts_after
    found = []
    for _, a, b, c, d in spans:
        for i, j in zip_longest(range(a, b), range(c, d)):
            before, after = (None if i is None else befores[i]), (None if j is None else afters[j])
            found.append(Pair(before, after, i, j))
    return tuple(found)


def _runs(parts: Sequence[Part], inputs: Inputs | None) -> list[tuple[int | None, int, int]]:
    """Give (side, first, end) of each stretch of parts with maps of one size; the last part on its own."""
    tokens = _token_widths(parts)
    runs, start = [], 0
    for key, run in groupby(parts, key=lambda part: (part.path == "", _size(part, inputs, tokens)[0])):
        end = start + len(list(run))
        runs.append((key[1], start, end))
        start = end
    return runs


def stages_of(pairs: Sequence[Pair], inputs: Inputs | None, *, related: bool = True) -> tuple[Stage, ...]:
    """Group parts by stage, and large stages by resolution; what lies between the parts comes last.

    Of networks that are not related all are grouped by resolution.
    """
    inner = [pair for pair in pairs if pair.part.path]
    tokens = _token_widths([pair.part for pair in inner])
    stages = []
    for stage, run in groupby(inner, key=lambda pair: pair.part.stage if related else ""):
        together = list(run)
        split = len(together) > FLAT or not related
        for _, same in groupby(together, key=lambda pair: _size(pair.part, inputs, tokens)[0] if split else None):
            members = tuple(same)
            stages.append(
                Stage(_stage_name(stage, members, whole=len(members) == len(together), related=related), members)
            )
    between = tuple(pair for pair in pairs if not pair.part.path)
    if any(part.params or part.macs for pair in between for part in (pair.before, pair.after) if part is not None):
        stages.append(Stage("between the blocks", between))
    return tuple(stages)


def _stage_name(stage: str, members: tuple[Pair, ...], *, whole: bool, related: bool) -> str:
    if stage and whole:
        return stage
    sides = [[part.path for pair in members if (part := getattr(pair, side))] for side in ("after", "before")]
    named = [names[0] if names[0] == names[-1] else f"{names[0]} … {names[-1]}" for names in sides if names]
    return named[0] if related else " / ".join(reversed(named))


def depth_of(report: Report, pairs: Sequence[Pair], stages: Sequence[Stage]) -> Depth:
    """Give resolution and channels along the parts."""
    inner = [pair for pair in pairs if pair.part.path]
    tokens = [_token_widths(parts) for parts in (report.parts_before, report.parts_after)]
    inputs = both_inputs(report)
    before = [_size(pair.before, inputs[0], tokens[0]) for pair in inner]
    after = [_size(pair.after, inputs[1], tokens[1]) for pair in inner]
    firsts, index = [], 0
    for stage in stages:
        if stage.pairs[0].part.path:
            firsts.append((index, stage.name))
            index += len(stage.pairs)
    return Depth(
        names=tuple(pair.part.path for pair in inner),
        sides_before=tuple(side for side, _ in before),
        sides_after=tuple(side for side, _ in after),
        channels_before=tuple(channels for _, channels in before),
        channels_after=tuple(channels for _, channels in after),
        read=_read(report, inner),
        stages=tuple(firsts),
    )


def _read(report: Report, pairs: Sequence[Pair]) -> dict[int, int]:
    """Find, for each part, the channels behind the space-to-depth of the replaced sites in it, the most of several."""
    deep = {kernel.site for kernel in report.kernels if any(math.prod(taps.scale) > 1 for taps in kernel.after)}
    found: dict[int, int] = {}
    for decision in report.decisions:
        site = decision.site
        if decision.action == "applied" and (site.name in deep or decision.leaves is not None):
            channels = max(site.channels or (site.geometry.in_channels,)) * math.prod(site.geometry.stride)
            channels = channels if decision.leaves is None else decision.leaves.new
            for index, pair in enumerate(pairs):
                if pair.holds(site):
                    found[index] = max(channels, found.get(index, 0))
    return found


def _token_widths(parts: Sequence[Part]) -> set[int]:
    """Give the channels of what leaves several parts alike with three axes: tokens, not what a head finds."""
    counts = Counter(part.output for part in parts)
    return {shape[2] for shape, count in counts.items() if shape is not None and len(shape) == TOKENS and count > 1}


def _size(part: Part | None, inputs: Inputs | None, tokens: Collection[int]) -> tuple[int | None, int | None]:
    """Give the shorter side of what leaves a part, and its channels."""
    if part is None or part.output is None:
        return None, None
    shape = part.output
    if len(shape) == 2:  # noqa: PLR2004 - pooled: one position
        return 1, shape[1]
    given = inputs.args[0].shape if inputs is not None and inputs.args else ()
    if len(shape) == TOKENS:
        if len(given) == TOKENS:  # a sequence goes in, and comes out
            return shape[2], shape[1]
        return (math.isqrt(shape[1]), shape[2]) if shape[2] in tokens else (None, None)
    if len(shape) < MAPS:
        return None, None
    last = len(shape) == MAPS and _channels_are_last(shape, given)
    return (min(shape[1:-1]), shape[-1]) if last else (min(shape[2:]), shape[1])


def _channels_are_last(shape: Shape, given: Shape) -> bool:
    """Guess the order of axes from the proportions of the input: maps keep them."""
    _, a, b, c = shape
    if not all((a, b, c, *given)):
        return False
    wide = given[-2] / given[-1] if len(given) == MAPS else 1.0

    def off(height: int, width: int) -> float:
        return abs(math.log(height / width / wide))

    return off(a, b) + 1e-9 < off(b, c)
