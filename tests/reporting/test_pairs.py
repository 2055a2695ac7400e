from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.records import Inputs, InputSpec, Measure, Origin, Part, Report, Source
from spdify.reporting.pairs import depth_of, is_related, pairs_of, stages_of

if TYPE_CHECKING:
    from collections.abc import Sequence

COST = Measure(params=1, macs=1, activation_bytes=1, weight_bytes=1)
INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 32, 32)),))


def part(path: str, *output: int, stage: str = "", macs: int = 5) -> Part:
    shape = (1, *output) if output else None
    return Part(path=path, type_name="Block", stage=stage, output=shape, params=1, macs=macs, activation_bytes=0)


def report(before: Sequence[Part], after: Sequence[Part], inputs: Inputs = INPUTS) -> Report:
    source = Source(spec="net.py:build", kind="code", name="build")
    origin = Origin(sources=(source, source), inputs=(inputs, inputs), versions={})
    return Report(
        model="a → b", rulebook="none", before=COST, after=COST, sites=(), decisions=(), parts_before=tuple(before),
        parts_after=tuple(after), origin=origin,
    )  # fmt: skip


def paths(made: Report) -> list[tuple[str, str]]:
    return [(p.before.path if p.before else "", p.after.path if p.after else "") for p in pairs_of(made)]


def test_parts_of_one_path_stand_side_by_side() -> None:
    before = [part("stem", 8, 16, 16), part("s.0", 8, 16, 16), part("head", 10)]
    after = [part("stem", 8, 16, 16), part("s.0", 8, 16, 16), part("s.1", 8, 16, 16), part("head", 10)]
    made = report(before, after)
    assert is_related(made)
    assert paths(made) == [("stem", "stem"), ("s.0", "s.0"), ("", "s.1"), ("head", "head")]
    assert [pair.after_index for pair in pairs_of(made)] == [0, 1, 2, 3]


def test_networks_without_common_paths_are_put_side_by_side_by_resolution() -> None:
    before = [part("a", 8, 16, 16), part("b", 8, 8, 8), part("c", 8, 8, 8)]
    after = [part("x", 8, 16, 16), part("y", 8, 16, 16), part("z", 8, 8, 8)]
    made = report(before, after)
    assert not is_related(made)
    assert paths(made) == [("a", "x"), ("", "y"), ("b", "z"), ("c", "")]
    assert [s.name for s in stages_of(pairs_of(made), INPUTS, related=False)] == ["a / x … y", "b … c / z"]


def test_large_stages_are_split_by_resolution_and_costs_stay() -> None:
    blocks = [part(f"f.{i}", 8, 16 >> (i // 5), 16 >> (i // 5), stage="f") for i in range(10)]
    made = report([*blocks, part("", macs=7)], [*blocks, part("", macs=7)])
    stages = stages_of(pairs_of(made), INPUTS)
    assert [s.name for s in stages] == ["f.0 … f.4", "f.5 … f.9", "between the blocks"]
    assert sum(s.total("after", "macs") for s in stages) == 57


def test_depth_knows_maps_of_either_order_tokens_and_vectors() -> None:
    parts = [
        part("nchw", 12, 16, 16), part("nhwc", 16, 16, 12), part("tokens", 50, 24), part("more", 50, 24), part("v", 7),
        part("unknown"),
    ]  # fmt: skip
    made = report(parts, parts)
    pairs = pairs_of(made)
    depth = depth_of(made, pairs, stages_of(pairs, INPUTS))
    assert depth.sides_before == depth.sides_after == (16, 16, 7, 7, 1, None)
    assert depth.channels_before == (12, 12, 24, 24, 7, None)


def test_the_order_of_axes_is_told_by_the_proportions_of_the_input() -> None:
    wide = Inputs(args=(InputSpec(shape=(1, 3, 32, 64)),))
    parts = [part("nchw", 16, 8, 16), part("nhwc", 8, 16, 16)]
    made = report(parts, parts, wide)
    pairs = pairs_of(made)
    assert depth_of(made, pairs, stages_of(pairs, wide)).channels_before == (16, 16)


def test_what_a_head_finds_is_no_map() -> None:
    parts = [part("a", 8, 16, 16), part("head", 8400, 91)]
    made = report(parts, parts)
    pairs = pairs_of(made)
    assert depth_of(made, pairs, stages_of(pairs, INPUTS)).sides_before == (16, None)
