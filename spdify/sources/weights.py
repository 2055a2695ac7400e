"""Putting weights into a model: all of them or none, and a message that says what does not fit."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from spdify.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

ShapePair: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]

_SHOWN = 5


@dataclass(frozen=True)
class _Misfit:
    """Names on which a model and a state dict differ; shapes are (expected, got)."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, ShapePair]

    @property
    def size(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Put weights into a model, strictly.

    A state dict in the names of a model's first publication is translated by timm's own filter, where the model has
    one and the names do not fit as they are.

    Args:
        model: Changed in place; after an error its weights are a mixture and it must not be used.
        state: Tensors by name.
        where: What the weights come from, for the message.

    Raises:
        CheckpointError: A name is missing or unknown, or a shape differs.
    """
    try:
        # Not compared beforehand: load_state_dict hooks may rename or add entries of older versions.
        model.load_state_dict(dict(state), strict=True)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        misfit = _compare(model, state)
        if misfit.size and _load_filtered(model, state):
            return
        raise CheckpointError(_message(model, misfit, where, error), hint=_hint(misfit)) from error


def fits(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has a model's names and shapes as they are."""
    return not _compare(model, state).size


def assign_weights(model: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Have a state dict that fits become the weights of a model, in the model's dtypes; nothing is copied.

    Args:
        model: Changed in place; it may be on the meta device.
        state: Used up.
        where: What the weights come from, for the message.

    Raises:
        CheckpointError: The model refuses them.
    """
    for name, tensor in model.state_dict().items():
        state[name] = state[name].to(tensor.dtype).contiguous()
    try:
        assign_state(model, state)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"Cannot load {where} into {type(model).__name__}: {error}") from error


def assign_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the tensors of a complete state dict themselves into a model; what was shared stays shared.

    Raises:
        RuntimeError: Names or shapes do not fit.
    """
    ties = _ties(model)
    # Some modules ask for the version of the state dict that they read (torchvision's MNASNet).
    versioned = OrderedDict(state)
    versioned._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]  # noqa: SLF001 - as torch does it
    model.load_state_dict(versioned, assign=True)
    for *others, (last, name) in ties:  # copying would end with the last one's values everywhere
        for module, other in others:
            setattr(module, other, getattr(last, name))


def _ties(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """List the places of each tensor that has several: assigning gives each place a tensor of its own."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, tensor in own_tensors(module):
            places.setdefault(id(tensor), []).append((module, name))
    return [where for where in places.values() if len(where) > 1]


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give a module's own parameters and buffers by name, also those that have another name before."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _load_filtered(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Try timm's translation; whatever it cannot do is told in the names that the caller has given."""
    translate = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if translate is None:
        return False
    try:
        translated = translate(dict(state), model)
        if _compare(model, translated).size:
            return False
        model.load_state_dict(translated, strict=True)
    except Exception:  # noqa: BLE001 - such filters assume their own checkpoints and fail on others in any way
        return False
    return True


def _compare(model: nn.Module, state: Mapping[str, Tensor]) -> _Misfit:
    expected = model.state_dict()
    shapes = {
        name: (tuple(tensor.shape), tuple(state[name].shape))
        for name, tensor in expected.items()
        if name in state and hasattr(tensor, "shape")
    }
    return _Misfit(
        missing=tuple(name for name in expected if name not in state),
        unexpected=tuple(name for name in state if name not in expected),
        mismatched={name: (want, got) for name, (want, got) in shapes.items() if want != got},
    )


def _message(model: nn.Module, misfit: _Misfit, where: str, error: Exception) -> str:
    head = f"Cannot load {where} into {type(model).__name__}"
    if not misfit.size:
        return f"{head}: {error}"
    counts = (
        f"{len(misfit.missing)} missing, {len(misfit.unexpected)} unexpected, "
        f"{len(misfit.mismatched)} of another shape, of {len(model.state_dict())} entries"
    )
    shapes = [f"{name} (expected {_axes(want)}, got {_axes(got)})" for name, (want, got) in misfit.mismatched.items()]
    lists: list[tuple[str, Sequence[str]]] = [
        ("missing", misfit.missing),
        ("unexpected", misfit.unexpected),
        ("of another shape", shapes),
    ]
    return "\n".join([f"{head}: {counts}.", *(f"  {title}: {_few(names)}" for title, names in lists if names)])


def _few(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _axes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _hint(misfit: _Misfit) -> str:
    if misfit.missing or misfit.unexpected:
        if any(name.endswith("phase_weight") or ".tournament." in name for name in misfit.unexpected):
            return "These are the weights of a converted network: give the folder that holds them as the model."
        return "Check that the checkpoint was saved from this model, with the same --model-kwargs."
    pairs = list(misfit.mismatched.values())
    if classes := _one_axis(pairs, axis=0):
        return f"Where this is the classifier, build the model for the checkpoint's classes: --num-classes {classes}."
    if channels := _one_axis(pairs, axis=1):
        return f"Where this is the first convolution, build the model for its channels: --in-chans {channels}."
    return "Check --num-classes, --in-chans, --input-size and --model-kwargs against the training run."


def _one_axis(pairs: list[ShapePair], *, axis: int) -> int | None:
    """Give the size that the checkpoint has along `axis`, where all shapes differ there alone and in the same way."""
    sizes = set()
    for want, got in pairs:
        if len(want) != len(got) or axis >= len(want):
            return None
        if want[:axis] + want[axis + 1 :] != got[:axis] + got[axis + 1 :]:
            return None
        sizes.add((want[axis], got[axis]))
    return sizes.pop()[1] if len(sizes) == 1 else None
