"""Example inputs: from tensors to their description, and back to random tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import torch
from pydantic import ValidationError
from torch import Tensor

from spdify.errors import UsageError
from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

Example: TypeAlias = "Tensor | Sequence[Tensor] | Mapping[str, Tensor]"

_INTEGER_BOUND = 2
"""Random integers lie below this: as indices they fit any table that has two rows."""


def example_inputs(
    inputs: Inputs, *, batch: int, seed: int, dtype: torch.dtype | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Make random inputs that fit a description.

    Args:
        inputs: What the forward pass takes, batch on axis 0.
        batch: Size of axis 0 instead of the described one.
        seed: Seed of the values; the same seed gives the same values.
        dtype: Floating-point dtype instead of the described one; integer inputs keep theirs.

    Returns:
        Positional and named tensors on the CPU: normally distributed where floating-point, 0 or 1 where integer.
    """
    generator = torch.Generator().manual_seed(seed)
    args = tuple(_random(spec, batch, generator, dtype) for spec in inputs.args)
    return args, {name: _random(spec, batch, generator, dtype) for name, spec in inputs.kwargs.items()}


def describe_inputs(example: Example) -> Inputs:
    """Describe the tensors that somebody's model takes.

    Args:
        example: One tensor; a tuple or list of positional tensors; or a dict of named ones. Batch on axis 0.

    Returns:
        Their shapes and dtypes.

    Raises:
        UsageError: Something in `example` is no tensor, or has no batch axis.
    """
    if isinstance(example, Tensor):
        return Inputs(args=(_describe("the example input", example),))
    if isinstance(example, Mapping):
        return Inputs(kwargs={str(name): _describe(f"example input '{name}'", x) for name, x in example.items()})
    if isinstance(example, (tuple, list)):
        return Inputs(args=tuple(_describe(f"example input {i}", x) for i, x in enumerate(example)))
    raise UsageError(
        f"Cannot describe the example inputs: expected a tensor, a tuple or a dict of tensors, "
        f"got {type(example).__name__}."
    )


def _describe(what: str, value: object) -> InputSpec:
    if not isinstance(value, Tensor):
        raise UsageError(f"Cannot describe {what}: expected a tensor, got {type(value).__name__}.")
    if not value.ndim:
        raise UsageError(f"Cannot describe {what}: expected the batch on axis 0, got a scalar tensor.")
    try:
        return InputSpec.model_validate({"shape": tuple(value.shape), "dtype": str(value.dtype).removeprefix("torch.")})
    except ValidationError as error:
        raise UsageError(f"Cannot describe {what}: {error.errors()[0]['msg']}.") from error


def _random(spec: InputSpec, batch: int, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    described: torch.dtype = getattr(torch, spec.dtype)
    shape = (batch, *spec.shape[1:])
    if not (described.is_floating_point or described.is_complex):
        return torch.randint(_INTEGER_BOUND, shape, generator=generator).to(described)
    if described.is_floating_point and dtype is not None:
        described = dtype
    # Drawn in float32 and then converted: every precision gets the same values, and half types have no generator
    # of their own everywhere.
    drawn = torch.complex64 if described.is_complex else torch.float32
    return torch.randn(shape, generator=generator, dtype=drawn).to(described)
