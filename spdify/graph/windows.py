"""Reading a window's geometry from a module, from a function's arguments and from an aten operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses
from torch.nn.modules import conv as conv_modules
from torch.nn.modules import pooling as pool_modules

from spdify.records import Geometry, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spdify.graph.operations import SeenOperator

TRANSPOSED = conv_modules._ConvTransposeNd  # noqa: SLF001 - torch gives the base classes no public name
LP_POOL = pool_modules._LPPoolNd  # noqa: SLF001 - an average pool between two powers
MODULE_OPERATORS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], SeenOperator], ...] = (
    (conv_modules._ConvNd, "conv"),  # noqa: SLF001
    (pool_modules._MaxPoolNd, "max_pool"),  # noqa: SLF001
    (pool_modules._AvgPoolNd, "avg_pool"),  # noqa: SLF001
    ((pool_modules._AdaptiveAvgPoolNd, pool_modules._AdaptiveMaxPoolNd), "adaptive_pool"),  # noqa: SLF001
)

#: Functions that a trace may show, with operator and number of spatial axes.
FUNCTION_STEMS: tuple[tuple[SeenOperator, str], ...] = (
    ("conv", "conv{}d"),
    ("max_pool", "max_pool{}d"),
    ("max_pool", "max_pool{}d_with_indices"),
    ("max_pool", "_max_pool{}d"),
    ("avg_pool", "avg_pool{}d"),
    ("adaptive_pool", "adaptive_avg_pool{}d"),
    ("adaptive_pool", "adaptive_max_pool{}d"),
    ("adaptive_pool", "_adaptive_max_pool{}d"),
)
FUNCTION_OPERATORS: dict[Callable[..., Any], tuple[SeenOperator, int]] = {
    target: (operator, dims)
    for operator, stem in FUNCTION_STEMS
    for dims in (1, 2, 3)
    for space in (F, torch)
    if (target := getattr(space, stem.format(dims), None)) is not None
}

ARGUMENT_NAMES: dict[str, tuple[str, ...]] = {
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "max_pool": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool": (
        "input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override",
    ),
    "adaptive_pool": ("input", "output_size"),
}  # fmt: skip


def torch_operator(module: nn.Module) -> SeenOperator | None:
    """Name the operator that a module of `torch.nn`, or a subclass of one, stands for; None for all others."""
    if isinstance(module, TRANSPOSED):
        return None
    return next((operator for types, operator in MODULE_OPERATORS if isinstance(module, types)), None)


def per_axis(value: Any, dims: int) -> Shape:  # noqa: ANN401 - torch takes an int, a tuple, or nothing
    """Give one entry per axis."""
    if isinstance(value, int):
        return (value,) * dims
    values = tuple(int(v) for v in value)
    return values * dims if len(values) == 1 else values


def dims_of(x: Shape, window: Sequence[int] | int | None, default: int) -> int:
    """Spatial axes of an operator on an input of this shape."""
    if isinstance(window, (tuple, list)) and len(window) > 1:
        return len(window)
    return default or len(x) - 2


def geometry_of(  # noqa: PLR0913 - the arguments of the operators themselves
    operator: SeenOperator,
    dims: int,
    input_shape: Shape,
    output_shape: Shape,
    *,
    kernel_size: Any = 1,  # noqa: ANN401
    stride: Any = None,  # noqa: ANN401
    padding: Any = 0,  # noqa: ANN401
    dilation: Any = 1,  # noqa: ANN401
    groups: int = 1,
    bias: bool = False,
    padding_mode: str = "zeros",
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Geometry:
    """Put the arguments of an operator into a `Geometry`; `stride` defaults to the kernel, as in pools."""
    kernel = per_axis(kernel_size, dims)
    channel_axis = -dims - 1
    if operator == "adaptive_pool":
        return Geometry(
            in_channels=input_shape[channel_axis], out_channels=output_shape[channel_axis],
            kernel=(1,) * dims, stride=(1,) * dims, padding=(0,) * dims, dilation=(1,) * dims,
        )  # fmt: skip
    dilations = per_axis(dilation, dims)
    if padding == "same":
        pads = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilations, strict=True))
    else:
        pads = (0,) * dims if padding == "valid" else per_axis(padding, dims)
    return Geometry(
        in_channels=input_shape[channel_axis],
        out_channels=output_shape[channel_axis],
        kernel=kernel,
        stride=per_axis(stride, dims) if stride not in (None, (), []) else kernel,
        padding=pads,
        dilation=dilations,
        groups=groups,
        bias=bias,
        padding_mode=padding_mode,
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
        divisor_override=divisor_override,
    )


def torch_geometry(module: nn.Module, operator: SeenOperator, input_shape: Shape, output_shape: Shape) -> Geometry:
    """Read the window of a called convolution or pool of `torch.nn`, or of a subclass."""
    names = (
        "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "ceil_mode", "count_include_pad",
        "divisor_override",
    )  # fmt: skip
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if operator == "conv":
        found["bias"] = getattr(module, "bias", None) is not None
    names_of_torch = "".join(base.__name__ for base in type(module).__mro__ if base.__module__.startswith("torch.nn"))
    digit = next((int(c) for c in names_of_torch if c in "123"), 0)
    dims = dims_of(input_shape, found.get("kernel_size"), digit)
    if operator == "adaptive_pool":
        found = {}
    return geometry_of(operator, dims, input_shape, output_shape, **found)


def function_geometry(
    target: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], output_shape: Shape
) -> Geometry:
    """Read the window of a functional call from its arguments (tensors, not nodes)."""
    operator, dims = FUNCTION_OPERATORS[target]
    bound = dict(zip(ARGUMENT_NAMES[operator], args, strict=False)) | kwargs
    shape = tuple(bound["input"].shape)
    if operator == "conv":
        weight = bound.pop("weight")
        bound["kernel_size"] = tuple(weight.shape[2:])
        bound["bias"] = bound.get("bias") is not None
        bound.setdefault("stride", 1)
    for name in ("input", "return_indices", "output_size"):
        bound.pop(name, None)
    if operator == "adaptive_pool":
        bound = {}
    return geometry_of(operator, dims, shape, output_shape, **bound)
