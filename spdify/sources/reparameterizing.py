"""Folding the training-time branches of a network into single convolutions, as timm does, before it is converted."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from timm.utils.model import reparameterize_model

from spdify.errors import SourceError, UsageError
from spdify.sources.comparing import first_difference

if TYPE_CHECKING:
    from torch import nn


def fold_branches(model: nn.Module, *, name: str) -> nn.Module:
    """Give a re-parameterised copy of a model: what timm's `reparameterize_model` makes of it.

    Args:
        model: Not changed; its weights go into the result.
        name: Of the model, for messages.

    Raises:
        SourceError: timm cannot do it.
    """
    try:
        with torch.no_grad():
            return reparameterize_model(copy.deepcopy(model).eval(), inplace=True).eval()
    except Exception as error:
        raise SourceError(
            f"Cannot re-parameterise {name}: {type(error).__name__}: {error}", hint="Leave out --reparameterize."
        ) from error


def fold_branches_of(model: nn.Module, *, name: str) -> nn.Module:
    """Give a re-parameterised copy of a model that has something to re-parameterise.

    Args:
        model: Not changed; its weights go into the result.
        name: Of the model, for messages.

    Raises:
        UsageError: There is nothing to re-parameterise in it.
        SourceError: timm cannot do it.
    """
    folded = fold_branches(model, name=name)
    if first_difference(model, folded) is None:
        raise UsageError(
            f"Cannot re-parameterise {name}: no module of it can be folded, or all are already.",
            hint="Leave out --reparameterize.",
        )
    return folded
