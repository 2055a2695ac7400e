"""The models of a sweep: their names, families and order."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from spdify.errors import UsageError

if TYPE_CHECKING:
    from spdify.zoo.records import SweepSettings


def model_names(settings: SweepSettings) -> tuple[str, ...]:
    """List the models that a run covers, in the order in which it takes them.

    The order is that of a hash: large and small models of all families lie side by side, so that an estimate of the
    time is good early on, shards are alike, and no giant is sure to come last.

    Raises:
        UsageError: The filter matches nothing, or the shard cannot be read.
    """
    names = [name for name in _all_names(settings.source) if _matches(name, settings.filter)]
    if not names:
        raise UsageError(
            f"cannot sweep over {settings.filter!r}: no model has such a name",
            hint="The filter is a glob on names: 'resnet*', 'torchvision:*'.",
        )
    index, total = parse_shard(settings.shard)
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return tuple(ordered[index - 1 :: total])


def _all_names(source: str | None) -> list[str]:
    import timm  # noqa: PLC0415 - it takes seconds, and summarizing needs none of it
    import torchvision  # noqa: PLC0415

    listed = {"timm": timm.list_models, "torchvision": torchvision.models.list_models}
    return [f"{kind}:{name}" for kind, names in listed.items() if source in {None, kind} for name in names()]


def _matches(name: str, pattern: str) -> bool:
    """Whether a glob matches the name, with or without its source."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition(":")[2], pattern)


def parse_shard(shard: str) -> tuple[int, int]:
    """Read `i/n`, with i from 1 to n.

    Raises:
        UsageError: It is nothing of the kind.
    """
    first, _, second = shard.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UsageError(f"cannot take the shard {shard!r}", hint="Expected i/n with i from 1 to n, for example 1/4.")


def family_of(name: str) -> str:
    """Give the module that defines a model: `timm.models.resnet`, `torchvision.models.detection.faster_rcnn`."""
    import timm  # noqa: PLC0415
    import torchvision  # noqa: PLC0415

    kind, _, bare = name.partition(":")
    find = timm.models.model_entrypoint if kind == "timm" else torchvision.models.get_model_builder
    return str(find(bare).__module__)
