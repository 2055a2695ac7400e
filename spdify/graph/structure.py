"""Copies of a model that hold its structure and no weights, and the fingerprint of a structure."""

from __future__ import annotations

import copy
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from spdify.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spdify.records import Inputs, InputSpec

_CPU = torch.device("cpu")

#: What fake tensors raise where a forward pass asks for numbers.
NEEDS_DATA = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)

#: Attributes of convolutions, pools and norms that change what they compute and show in no tensor's shape.
WINDOW_ATTRIBUTES = (
    "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "ceil_mode", "count_include_pad",
    "divisor_override", "output_size", "num_groups",
)  # fmt: skip


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


def copy_with(model: nn.Module, copy_tensor: Callable[[Tensor], Tensor]) -> nn.Module:
    """Copy a model, its tensors by `copy_tensor`; deepcopy alone refuses cached tensors with a gradient history."""
    memo: dict[int, Any] = {}
    for tensor in _all_tensors(model):
        if id(tensor) in memo:
            continue
        copied = copy_tensor(tensor.detach())
        if isinstance(tensor, nn.Parameter):
            copied = _as_parameter(copied, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = copied
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        msg = f"cannot copy {type(model).__name__}: {error}"
        raise TraceError(msg, hint="Every attribute of the model must survive copy.deepcopy.") from error


def _as_parameter(tensor: Tensor, *, requires_grad: bool) -> Tensor:
    """Make a fresh tensor a parameter: what nn.Parameter does for subclasses, without its detour through `detach`."""
    if type(tensor) is not FakeTensor:
        return nn.Parameter(tensor, requires_grad=requires_grad)
    tensor.requires_grad_(requires_grad)
    tensor._is_param = True  # noqa: SLF001 - how torch marks them
    return tensor


def detached_copy(model: nn.Module) -> nn.Module:
    """Copy a model with its weights; unlike copy.deepcopy, also after a forward pass whose results it keeps.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    return copy_with(model, torch.Tensor.clone)


def lazy_copy(model: nn.Module) -> nn.Module:
    """Copy a model with its weights, each of which takes memory of its own only when one of both is written to.

    On other devices than the CPU, and where memory is not PyTorch's own, tensors are copied at once.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    return copy_with(model, _copied_on_write)


def _copied_on_write(tensor: Tensor) -> Tensor:
    if not tensor.is_cpu:
        return tensor.clone()
    try:
        return torch._lazy_clone(tensor)  # noqa: SLF001 - the one way to PyTorch's copy-on-write storage
    except RuntimeError:  # memory that PyTorch has not allocated: a mapped file's, numpy's, other processes'
        return tensor.clone()


def sharing_copy(model: nn.Module) -> nn.Module:
    """Copy a model whose tensors stay those of the original: what is done to the copy's attributes stays there.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    return copy_with(model, lambda tensor: tensor)


class _Silence(logging.Filter):
    """Keeps back what PyTorch logs of a failing fake operator: the exception says it, and is turned into a message."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "failed while attempting to run meta" not in str(record.msg)


logging.getLogger("torch._subclasses.fake_tensor").addFilter(_Silence())


def fake_copy(model: nn.Module) -> tuple[nn.Module, FakeTensorMode]:
    """Copy a model with every tensor replaced by a fake one on the CPU, wherever it lives; no weight is copied.

    Returns:
        The copy, and the mode under which to run it.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(tensor: Tensor) -> Tensor:
        if tensor.layout != torch.strided or tensor.is_quantized:
            return mode.from_tensor(tensor, static_shapes=True)
        # What empty_strided gives under the mode, without the way through its dispatcher: a model has thousands.
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return FakeTensor(mode, meta, _CPU)

    return copy_with(model, fake), mode


def fake_inputs(inputs: Inputs, mode: FakeTensorMode, *, batch: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Make fake inputs of these shapes with `batch` as the first size."""
    with mode:
        return zero_inputs(inputs, batch=batch)


def zero_inputs(inputs: Inputs, *, batch: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Make inputs of zeros with `batch` as the first size."""

    def one(spec: InputSpec) -> Tensor:
        return torch.zeros((batch, *spec.shape[1:]), dtype=getattr(torch, spec.dtype), device="cpu")

    return [one(spec) for spec in inputs.args], {name: one(spec) for name, spec in inputs.kwargs.items()}


def fingerprint(model: nn.Module) -> str:
    """Hash path, class and window of every module, name and shape of every tensor; no weights, no sizes of inputs.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    digest = hashlib.sha256()
    for path, module in model.named_modules(remove_duplicate=False):
        digest.update(f"{path}:{type(module).__name__}\n".encode())
        window = {name: getattr(module, name, None) for name in WINDOW_ATTRIBUTES}
        plain = {k: v for k, v in window.items() if isinstance(v, (int, str, tuple))}
        digest.update(f"{plain}\n".encode())
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        digest.update(f"{name}:{shape}\n".encode())
    return digest.hexdigest()
