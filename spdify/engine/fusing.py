"""The way back: from a converted network to the form that is deployed."""

from __future__ import annotations

from torch import nn

from spdify import blocks
from spdify.blocks.fusing import NO_OTHER_FORM, fused
from spdify.engine.places import keep_place
from spdify.graph.structure import detached_copy
from spdify.records import FusedSite

BLOCKS: tuple[type[nn.Module], ...] = tuple(
    kind for name in blocks.__all__ if isinstance(kind := getattr(blocks, name), type)
)
READ_BY_OTHERS = "it is a convolution at every position, and the next layers read all of them"
REDUCTION_TRAINED = "its reduction was trained: at the edges no strided convolution computes the same"


def fuse(model: nn.Module) -> nn.Module:
    """Copy a converted network into the form that is deployed: strided convolutions, and pools that nobody has trained.

    The same function, to rounding, for any weights: an SPD-Conv with K taps over blocks of s positions is a strided
    convolution with kernel K·s. What nobody has trained folds back to what there was before the conversion.

    Args:
        model: A converted network; not changed.

    Returns:
        The fused network, in the same mode, dtype and device: for running, not for going on to train. The blocks and
        the names of their parameters are gone.
    """
    twin = detached_copy(model)
    fuse_blocks(twin)
    return twin


def fuse_blocks(model: nn.Module) -> tuple[FusedSite, ...]:
    """Put the deployed form of each block into a network, in place, and say what each has become.

    A block that is registered at several paths stays one module.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    sites = []
    for path, block in list(model.named_modules(remove_duplicate=False)):
        if type(block) not in BLOCKS:
            continue
        if block not in made:
            made[block] = fused(block)
            if (form := made[block]) is not None:
                keep_place(block, form)
            sites.append(_described(path, block, made[block]))
        if (form := made[block]) is not None:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, form)
    return tuple(sites)


def _in_words(form: nn.Module) -> str:
    """Give a module in one line: that of PyTorch for one without parts, the parts of a sequence."""
    if isinstance(form, nn.Sequential):
        return " → ".join(map(_in_words, form))
    if any(True for _ in form.children()):
        return f"{type(form).__name__}({form.extra_repr()})"
    return " ".join(repr(form).split())


def _described(path: str, block: nn.Module, form: nn.Module | None) -> FusedSite:
    """Say in a line what a block has become, or why it stays."""
    kind = type(block).__name__
    if form is None:
        trained = READ_BY_OTHERS if getattr(block, "reduction_weight", None) is None else REDUCTION_TRAINED
        return FusedSite(path=path, block=kind, reason=NO_OTHER_FORM.get(type(block), trained))
    return FusedSite(path=path, block=kind, form=_in_words(form))
