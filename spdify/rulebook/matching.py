"""Whether a rule takes a site.

Sites of a kind are numbered over the whole model in execution order, so `index` and `total` come from the caller.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.records import Geometry, Shape, Site
    from spdify.rulebook.form import Match, Range, Rule, Rulebook


def matches(match: Match, site: Site, *, index: int, total: int) -> bool:
    """Tell whether all keys of `match` hold for `site`.

    Args:
        match: The keys.
        site: The site.
        index: Place of the site among the model's sites of its kind in execution order, from 0.
        total: Number of the model's sites of this kind.
    """
    geometry = site.geometry
    return (
        site.kind in match.kinds
        and _operator_is(match.operator, site)
        and (match.type is None or _fits(match.type, site.type_name))
        and (match.parent is None or _fits(match.parent, site.parent))
        and (match.path is None or _fits(match.path, site.path))
        and (match.exclude is None or not _fits(match.exclude, site.path))
        and _axes_are(match.kernel, geometry.kernel)
        and _axes_are(match.stride, geometry.stride)
        and _axes_are(match.dilation, geometry.dilation)
        and (match.groups is None or (site.operator == "conv" and match.groups == _groups(geometry)))
        and (match.resolution is None or _within(match.resolution, site.resolution))
        and (match.position is None or stands_at(match.position, index, total))
    )


def first_match(rulebook: Rulebook, site: Site, *, index: int, total: int) -> tuple[Rule | None, tuple[str, ...]]:
    """Give the rule that decides about `site` (None where there is none) and the names of later rules that match too.

    Args:
        rulebook: The rules, in order.
        site: The site.
        index: Place of the site among the model's sites of its kind in execution order, from 0.
        total: Number of the model's sites of this kind.
    """
    hits = [rule for rule in rulebook.rules if matches(rule.match, site, index=index, total=total)]
    return (hits[0] if hits else None), tuple(rule.name for rule in hits[1:])


def _operator_is(names: Sequence[str] | None, site: Site) -> bool:
    return names is None or site.operator in names or f"{site.operator}{site.geometry.dims}d" in names


def _fits(globs: Sequence[str], text: str) -> bool:
    # fnmatchcase, since fnmatch folds case on some systems and module paths do not.
    return any(fnmatchcase(text, glob) for glob in globs)


def _axes_are(wanted: int | Shape | None, axes: Shape) -> bool:
    if wanted is None:
        return True
    return axes == (wanted if isinstance(wanted, tuple) else (wanted,) * len(axes))


def _groups(geometry: Geometry) -> str:
    if geometry.groups == 1:
        return "dense"
    return "depthwise" if geometry.depthwise else "grouped"


def _within(bounds: Range, size: int) -> bool:
    return (bounds.min is None or size >= bounds.min) and (bounds.max is None or size <= bounds.max)


def stands_at(position: str, index: int, total: int) -> bool:
    """Tell whether the entry at `index` of `total` is one of those that an index or a range names."""
    if ":" not in position:
        place = int(position)
        return index == (place if place >= 0 else place + total)
    start, stop = (int(end) if end else None for end in position.split(":"))
    return index in range(*slice(start, stop).indices(total))
