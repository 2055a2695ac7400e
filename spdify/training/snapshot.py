"""The state of a training as tensors and text: written and read without pickle."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

TENSOR, FORMAT, DTYPE, PAIRS, TUPLE = "$tensor", "$format", "$dtype", "$pairs", "$tuple"


class _Format(NamedTuple):
    """A memory format other than the usual one, and the number of axes that it is for."""

    ndim: int
    format: torch.memory_format


#: Kept, since norms are summed in the order of the memory: an optimizer that takes them must go on in the same.
FORMATS = {"channels_last": _Format(4, torch.channels_last), "channels_last_3d": _Format(5, torch.channels_last_3d)}


def _only_in(format_: torch.memory_format, tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=format_) and not tensor.is_contiguous()


def pack(state: object) -> tuple[dict[str, Tensor], str]:
    """Take a nested state apart.

    Args:
        state: Of dicts, lists, tuples, tensors, numbers, texts and None.

    Returns:
        The tensors by name, each storage once, and JSON with their names in their places.

    Raises:
        TypeError: It holds something else.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[object, str] = {}

    def named(tensor: Tensor) -> str:
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        key: object = place if tensor.numel() else len(tensors)
        if key not in names:
            names[key] = f"t{len(names)}"
            # A copy of its own: safetensors takes neither views of one storage nor other memory formats.
            tensors[names[key]] = tensor.detach().cpu().contiguous().clone()
        return names[key]

    def taken(value: object) -> object:
        if isinstance(value, Tensor):
            format_ = next(
                (name for name, f in FORMATS.items() if f.ndim == value.ndim and _only_in(f.format, value)), ""
            )
            return {TENSOR: named(value), FORMAT: format_}
        if isinstance(value, torch.dtype):
            return {DTYPE: str(value).removeprefix("torch.")}
        if isinstance(value, dict):
            return {PAIRS: [[key, taken(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {TUPLE: [taken(item) for item in value]}
        if isinstance(value, list):
            return [taken(item) for item in value]
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        msg = f"cannot save {type(value).__name__} of a training's state"
        raise TypeError(msg)

    return tensors, json.dumps(taken(state))


def unpack(tensors: dict[str, Tensor], text: str) -> Any:  # noqa: ANN401 - whatever was packed
    """Put a nested state together again.

    Raises:
        KeyError: A tensor is missing.
        ValueError: The text is no such JSON, or a memory format is for other axes.
    """

    def put(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [put(item) for item in value]
        if not isinstance(value, dict):
            return value
        if TENSOR in value:
            format_ = FORMATS.get(value[FORMAT])
            tensor = tensors[value[TENSOR]]
            if format_ is not None and format_.ndim != tensor.ndim:
                msg = f"a tensor of {tensor.ndim} axes cannot be {value[FORMAT]}"
                raise ValueError(msg)
            return tensor if format_ is None else tensor.contiguous(memory_format=format_.format)
        if DTYPE in value:
            return _dtype(value[DTYPE])
        if TUPLE in value:
            return tuple(put(item) for item in value[TUPLE])
        return {key: put(item) for key, item in value[PAIRS]}

    return put(json.loads(text))


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        msg = f"there is no dtype {name!r}"
        raise ValueError(msg)  # noqa: TRY004 - of what a file says
    return found
