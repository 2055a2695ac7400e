"""Where the blocks of a plan are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import Plan

#: Where a module stands among others, which Ultralytics' package writes on it and goes by: its number, from where its
#: input comes, its title and its number of parameters.
PLACE = ("i", "f", "type", "np")


def block_places(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Give all paths at which each block is registered, by the first of them.

    A path inside a module that is replaced itself (a pool kept as a child of a convolution) goes away with that module;
    a site without any other path is not in the dictionary.
    """
    paths = {d.site.block_path: d.site.block_paths for d in plan.applied}
    replaced = {path for group in paths.values() for path in group}
    live = {site: tuple(path for path in group if not _is_inside(path, replaced)) for site, group in paths.items()}
    return {site: group for site, group in live.items() if group}


def _is_inside(path: str, replaced: set[str]) -> bool:
    return place_of(path.rpartition(".")[0], replaced) is not None


def place_of(path: str, replaced: set[str]) -> str | None:
    """Give the path in `replaced` that is `path` or a module around it; None where there is none."""
    while path:
        if path in replaced:
            return path
        path = path.rpartition(".")[0]
    return None


def keep_place(old: nn.Module, new: nn.Module) -> None:
    """Write on a module, in place, where the one stood whose place it takes, as far as that was written on it."""
    for name in PLACE:
        if name in vars(old) and name not in vars(new):
            setattr(new, name, vars(old)[name])
