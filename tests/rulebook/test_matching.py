"""Which sites a rule takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from spdify.records import Call, Geometry, Operator, Shape, Site
from spdify.rulebook import Match, Rule, Rulebook, first_match, load_rulebook, matches

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_site(
    operator: Operator = "conv",
    *,
    path: str = "layer2.0.conv2",
    type_name: str = "Conv2d",
    parent: str = "Bottleneck",
    kernel: Shape = (3, 3),
    stride: Shape = (2, 2),
    channels: int = 8,
    groups: int = 1,
    sizes: Sequence[int] = (56,),
) -> Site:
    dims = len(kernel)
    geometry = Geometry(
        in_channels=channels,
        out_channels=channels,
        kernel=kernel,
        stride=stride,
        padding=(1,) * dims,
        dilation=(1,) * dims,
        groups=groups,
    )
    calls = tuple(
        Call(input=(2, channels, *(size,) * dims), output=(2, channels, *(size // 2,) * dims)) for size in sizes
    )
    return Site(path=path, operator=operator, type_name=type_name, parent=parent, geometry=geometry, calls=calls)


def holds(keys: dict[str, Any], site: Site, *, index: int = 0, total: int = 1) -> bool:
    return matches(Match.model_validate(keys), site, index=index, total=total)


def test_no_keys_match_everything() -> None:
    assert holds({}, make_site())
    assert holds({}, make_site("slice"))


@pytest.mark.parametrize(
    ("names", "operator", "dims", "expected"),
    [
        ("conv", "conv", 1, True),
        ("conv", "conv", 3, True),
        ("conv2d", "conv", 2, True),
        ("conv2d", "conv", 1, False),
        ("conv", "max_pool", 2, False),
        ("max_pool3d", "max_pool", 3, True),
        ("avg_pool", "max_pool", 2, False),
        (["conv1d", "avg_pool"], "avg_pool", 2, True),
        (["conv1d", "avg_pool"], "conv", 2, False),
        ("slice", "slice", 2, True),
    ],
)
def test_operator(names: str | list[str], operator: Operator, dims: int, *, expected: bool) -> None:
    site = make_site(operator, kernel=(3,) * dims, stride=(2,) * dims)
    assert holds({"operator": names}, site) is expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"path": "layer*"}, True),
        ({"path": "layer2"}, False),
        ({"path": "Layer*"}, False),
        ({"path": ["stem*", "*.conv2"]}, True),
        ({"path": "layer[13].*"}, False),
        ({"path": "*", "exclude": "layer2.*"}, False),
        ({"exclude": ["stem", "layer1.*"]}, True),
        ({"type": "Conv*"}, True),
        ({"type": ["conv2d", "MaxPool*"]}, False),
    ],
)
def test_globs(keys: dict[str, Any], *, expected: bool) -> None:
    assert holds(keys, make_site()) is expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"kernel": 3}, False),
        ({"kernel": [3, 1]}, True),
        ({"kernel": [1, 3]}, False),
        ({"kernel": [3]}, False),
        ({"stride": 2}, True),
        ({"stride": [2, 2]}, True),
        ({"stride": [2]}, False),
        ({"dilation": 1}, True),
        ({"dilation": 2}, False),
    ],
)
def test_axes(keys: dict[str, Any], *, expected: bool) -> None:
    assert holds(keys, make_site(kernel=(3, 1))) is expected


@pytest.mark.parametrize(("groups", "kind"), [(1, "dense"), (8, "depthwise"), (4, "grouped")])
def test_groups_are_of_one_kind(groups: int, kind: str) -> None:
    site = make_site(groups=groups)
    assert [name for name in ("dense", "depthwise", "grouped") if holds({"groups": name}, site)] == [kind]


def test_one_channel_is_dense() -> None:
    assert holds({"groups": "dense"}, make_site(channels=1))


def test_a_pool_has_no_groups() -> None:
    assert not holds({"groups": "dense"}, make_site("max_pool"))


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"min": 28}, True),
        ({"min": 29}, False),
        ({"max": 28}, True),
        ({"max": 27}, False),
        ({"min": 8, "max": 56}, True),
    ],
)
def test_resolution_is_that_of_the_smallest_call(bounds: dict[str, int], *, expected: bool) -> None:
    assert holds({"resolution": bounds}, make_site(sizes=(56, 28))) is expected


@pytest.mark.parametrize(
    ("position", "taken"),
    [
        ("0", [0]),
        (1, [1]),
        ("-1", [4]),
        (-5, [0]),
        ("7", []),
        (-6, []),
        ("1:", [1, 2, 3, 4]),
        (":2", [0, 1]),
        ("-2:", [3, 4]),
        ("1:-1", [1, 2, 3]),
        (":", [0, 1, 2, 3, 4]),
        ("3:1", []),
    ],
)
def test_position_counts_like_python(position: str | int, taken: list[int]) -> None:
    site = make_site()
    assert [i for i in range(5) if holds({"position": position}, site, index=i, total=5)] == taken


def test_all_keys_must_hold() -> None:
    site = make_site()
    assert holds({"operator": "conv", "path": "layer*", "kernel": 3}, site)
    assert not holds({"operator": "conv", "path": "layer*", "kernel": 1}, site)


def book(*rules: tuple[str, dict[str, Any]]) -> Rulebook:
    made = tuple(Rule(name=name, rewrite="replace", match=Match.model_validate(keys)) for name, keys in rules)
    return Rulebook.model_validate({"name": "mine", "schema": 1, "summary": "s", "rule": made})


def test_the_first_rule_decides_and_later_ones_are_named() -> None:
    rules = book(("pools", {"operator": "max_pool"}), ("late", {"path": "layer*"}), ("all", {}), ("any", {}))
    rule, others = first_match(rules, make_site(), index=0, total=1)
    assert rule is rules.rules[1]
    assert others == ("all", "any")


def test_no_rule_for_a_site() -> None:
    assert first_match(book(("pools", {"operator": "max_pool"})), make_site(), index=0, total=1) == (None, ())


@pytest.mark.parametrize(
    ("operator", "rule_name"),
    [
        ("conv", "strided-conv"),
        ("avg_pool", "average-pool"),
        ("max_pool", "max-pool"),
        ("blur_pool", "blur-pool"),
        ("slice", "subsampling-slice"),
    ],
)
def test_the_default_rulebook_has_one_rule_for_each_operator(operator: Operator, rule_name: str) -> None:
    rule, others = first_match(load_rulebook("spd"), make_site(operator), index=0, total=1)
    assert rule is not None
    assert (rule.name, others) == (rule_name, ())


def test_the_class_around_a_site() -> None:
    site = make_site(parent="Conv")
    assert matches(Match(parent=("Conv",)), site, index=0, total=1)
    assert matches(Match(parent=("Bottleneck", "C*")), site, index=0, total=1)
    assert not matches(Match(parent=("Conv2d*",)), site, index=0, total=1)
    assert not matches(Match(parent=("*Norm*",)), make_site(parent=""), index=0, total=1)
