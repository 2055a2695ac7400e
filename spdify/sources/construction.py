"""Calling a constructor: with a seed, without noise, and with its faults told in words."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from torch import nn

from spdify.errors import SourceError, SpdifyError
from spdify.sources.network import is_download_error
from spdify.sources.random_state import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spdify.sources.options import KwargValue


def registry_values(kwargs: Mapping[str, KwargValue]) -> dict[str, Any]:
    """Give keyword arguments as registries take them: records hold lists, where constructors compare with tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}


def construct(
    constructor: Callable[..., Any], kwargs: Mapping[str, Any], *, name: str, seed: int, hint: str = ""
) -> nn.Module:
    """Build a model.

    Args:
        constructor: What to call.
        kwargs: Its keyword arguments.
        name: The model, for messages.
        seed: Seed of the random weights.
        hint: What to do when it fails.

    Returns:
        What `constructor` returns, as it is.

    Raises:
        SourceError: The constructor raises, or returns something that is no module.
    """
    try:
        with seeded(seed), warnings.catch_warnings():
            # torchvision announces a change of its default initialisation; nothing follows for the user from it.
            warnings.filterwarnings("ignore", message="The default weight initialization of", category=FutureWarning)
            model = constructor(**kwargs)
    except SpdifyError:
        raise
    except Exception as error:
        if is_download_error(error):
            raise
        raise SourceError(f"Cannot build {name}{_with(kwargs)}: {type(error).__name__}: {error}", hint=hint) from error
    if not isinstance(model, nn.Module):
        raise SourceError(f"Cannot use {name}: expected a torch.nn.Module, got {type(model).__name__}.", hint=hint)
    return model


def _with(kwargs: Mapping[str, Any]) -> str:
    shown = [f"{key}={value!r}" for key, value in kwargs.items() if isinstance(value, (str, int, float, tuple, list))]
    return f" with {', '.join(shown)}" if shown else ""
