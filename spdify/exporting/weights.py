"""Other weights in an exported program, without tracing again.

A network fresh from timm has zero as the last batch-norm weight of each residual branch: on its own weights a
comparison says nothing about what lies on those branches. The program as translated holds the state dict tensor by
tensor under its own names; a copy with other values, put through the same optimiser, is the file of the same network
with those weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from onnxscript import ir
from torch.onnx import ONNXProgram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

#: How far weights are moved to tell them apart, and what a zero is taken for.
DISTINCT, TINY = 1e-3, 1e-2
# Where a tensor lies and how it is read: the same for all names of a tied parameter.
Place: TypeAlias = tuple[int | str | tuple[int, ...], ...]


class WeightsError(Exception):
    """Why values cannot be put into a program; becomes a check that was not run."""


def tie(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give all names of one tied parameter one tensor, that of the first name.

    Raises:
        WeightsError: The names or shapes in `values` are not those of the model's state dict.
    """
    own = model.state_dict()
    if own.keys() != values.keys():
        odd = sorted(own.keys() ^ values.keys())
        raise WeightsError(f"the weights given are not those of the model: {len(odd)} names differ, first `{odd[0]}`")
    firsts: dict[Place, str] = {}
    tied: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if values[name].shape != tensor.shape:
            raise WeightsError(f"`{name}`: expected shape {tuple(tensor.shape)}, got {tuple(values[name].shape)}")
        tied[name] = values[firsts.setdefault(_place(name, tensor), name)]
    return tied


def distinct(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Change every floating-point tensor a little, so that no two hold the same numbers.

    To trace with: the TorchScript exporter keeps one of those that do.
    """
    generator = torch.Generator().manual_seed(0)

    def moved(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator).to(x)
        return x * (1 + DISTINCT * noise) + DISTINCT * TINY * noise

    return {name: moved(x) if x.is_floating_point() else x for name, x in values.items()}


def with_weights(program: ONNXProgram, model: nn.Module, values: Mapping[str, Tensor]) -> ONNXProgram:
    """Copy a program that is not optimised, with other values in its initializers.

    Args:
        program: As exported from `model`; shares with the copy every tensor that stays.
        model: Its state dict tells which initializer is which: by name, and by holding the same values.
        values: A full state dict, tied (`tie`).

    Raises:
        WeightsError: A tensor that the program uses cannot be found among its initializers.
    """
    own = model.state_dict()
    copy = program.model.clone()
    placed: set[Place] = set()
    for name, initializer in copy.graph.initializers.items():
        if name in own and _holds(initializer, own[name]):
            initializer.const_value = ir.tensor(values[name].detach().contiguous().numpy(), name=name)
            placed.add(_place(name, own[name]))
    used = _used(program) if program.exported_program is not None else _floating(own)
    lost = [name for name in sorted(used) if name in own and _place(name, own[name]) not in placed]
    if lost:
        raise WeightsError(f"{len(lost)} tensors of the model are not initializers of the program, first `{lost[0]}`")
    return ONNXProgram(copy, program.exported_program)


def _place(name: str, tensor: Tensor) -> Place:
    """Tell tensors apart by where they lie; an empty one lies nowhere."""
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,)


def _holds(initializer: ir.Value, tensor: Tensor) -> bool:
    """Tell whether the initializer is this tensor: names alone may mislead."""
    constant = initializer.const_value
    return constant is not None and np.array_equal(constant.numpy(), tensor.detach().numpy())


def _used(program: ONNXProgram) -> set[str]:
    """Give the names of parameters and buffers that some output depends on.

    Not of those that are read for nothing, or only to update a buffer: the exporter drops both.
    """
    traced = program.exported_program
    if traced is None:
        raise WeightsError("the exporter kept no trace to tell which tensors are used")
    signature = traced.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    waiting = [node for node in traced.graph.nodes if node.name in signature.user_outputs]
    seen = set(waiting)
    while waiting:
        new = set(waiting.pop().all_input_nodes) - seen
        seen |= new
        waiting.extend(new)
    return {names[node.name] for node in seen if node.name in names}


def _floating(state: Mapping[str, Tensor]) -> set[str]:
    """Give the names of all tensors that a forward pass may read: without a trace, nothing says which it does."""
    return {name for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel()}
