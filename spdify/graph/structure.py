"""Copies of a model that hold its structure and no weights, and the fingerprint of a structure."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spdify.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spdify.records import Inputs


def _held_tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in a module's plain attribute: itself, or in a list, tuple or dict."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _held_tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _held_tensors(item)


def _all_tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for name, value in vars(module).items():
            if name != "_modules":
                yield from _held_tensors(value)


def fake_copy(model: nn.Module) -> tuple[nn.Module, FakeTensorMode]:
    """Copy a model with every tensor replaced by a fake one; no weight is copied.

    Cached tensors in plain attributes are replaced too: such a cache with a gradient history cannot be deep-copied.

    Returns:
        The copy, and the mode under which to run it.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    memo: dict[int, Any] = {}
    for tensor in _all_tensors(model):
        if id(tensor) in memo:
            continue
        fake: Tensor = mode.from_tensor(tensor.detach(), static_shapes=True)
        if isinstance(tensor, nn.Parameter):
            fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = fake
    try:
        return copy.deepcopy(model, memo), mode
    except Exception as error:
        msg = f"cannot copy {type(model).__name__}: {error}"
        raise TraceError(msg, hint="Every attribute of the model must survive copy.deepcopy.") from error


def fake_inputs(inputs: Inputs, mode: FakeTensorMode, *, batch: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Make fake inputs of these shapes with `batch` as the first size."""

    def one(shape: tuple[int, ...], dtype: str) -> Tensor:
        with mode:
            return torch.empty((batch, *shape[1:]), dtype=getattr(torch, dtype))

    args = [one(spec.shape, spec.dtype) for spec in inputs.args]
    return args, {name: one(spec.shape, spec.dtype) for name, spec in inputs.kwargs.items()}


def fingerprint(model: nn.Module) -> str:
    """Hash the structure: path and class of every module, name and shape of every tensor; no weights, no sizes of inputs.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    digest = hashlib.sha256()
    for path, module in model.named_modules(remove_duplicate=False):
        digest.update(f"{path}:{type(module).__name__}\n".encode())
        stride = getattr(module, "stride", None)
        if isinstance(stride, (int, tuple)):
            window = [getattr(module, name, None) for name in ("kernel_size", "padding", "dilation", "groups")]
            digest.update(f"{stride} {window}\n".encode())
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        digest.update(f"{name}:{shape}\n".encode())
    return digest.hexdigest()
