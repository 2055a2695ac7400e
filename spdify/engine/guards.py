"""What a class does to its own convolutions later on is said to be impossible once they are replaced.

timm's networks with training-time branches, and torchvision's quantizable ones, fold convolutions into each other by
methods that look for `torch.nn` convolutions with their kernels. On blocks these would fail somewhere inside, or
compute something else; so each such method of a module that holds a block raises at once, and says what to do.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

from spdify.engine.ultralytics_hooks import is_ultralytics
from spdify.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

#: Methods that fold a module's own convolutions, called without arguments.
FOLDING = ("fuse", "fuse_model", "reparameterize", "switch_to_deploy")


def guard_folding(model: nn.Module, replaced: Iterable[str]) -> None:
    """Make every folding method of a module around a replaced one raise, in place.

    Args:
        model: A converted network.
        replaced: Paths of its blocks.
    """
    around = {path[:end] for path in replaced for end in _ends(path)}
    for path in around:
        module = model.get_submodule(path)
        if is_ultralytics(module):  # whose fuse() knows blocks
            continue
        for name in FOLDING:
            if _takes_nothing(getattr(type(module), name, None)):
                # Kept by copies and by pickle: a partial of a function of this module.
                setattr(module, name, partial(_refuse, path, name))


def guard_classifier(model: nn.Module, adjusted: Iterable[str]) -> None:
    """Make timm's `reset_classifier` raise, in place, where the classifier reads more channels than it would make."""
    get: object = getattr(type(model), "get_classifier", None)
    if not _takes_nothing(get) or not callable(getattr(type(model), "reset_classifier", None)):
        return
    classifier = get(model)  # type: ignore[operator]  # callable, by the line above
    if any(model.get_submodule(path) is classifier for path in adjusted):
        setattr(model, "reset_classifier", partial(_refuse_reset))  # noqa: B010 - not a tensor, as mypy has it


def _refuse_reset(*_args: object, **_kwargs: object) -> None:
    raise RefusedError(
        "cannot call reset_classifier(): the classifier reads more channels than the model was made with",
        hint="Convert with the classes you want: spdify convert --num-classes N (in Python: num_classes=N).",
    )


def _ends(path: str) -> Iterable[int]:
    """Give where the paths of the modules around `path` end, the model's own (empty) one included."""
    return [0, *(i for i, character in enumerate(path) if character == ".")]


def _takes_nothing(method: object) -> bool:
    """Whether it is a method that can be called without arguments; others of the same name are something else."""
    if not callable(method):
        return False
    _, *parameters = inspect.signature(method).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in variable for p in parameters)


def _refuse(path: str, name: str, *_args: object, **_kwargs: object) -> None:
    raise RefusedError(
        f"cannot call {name}() on {path or 'the model'}: convolutions in it were replaced by spdify",
        hint="Fold the original first and convert the result: spdify convert --reparameterize "
        "(in Python: spdify.convert(model, reparameterize=True)).",
    )
