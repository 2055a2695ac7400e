"""What functions and methods in a model's own code do with channels that became more (see `spdify.graph.carriers`)."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

#: Functions of a tensor's entries one by one, by function or by name of the method. Linear ones apart.
POINTWISE_NAMES = (
    "relu", "relu_", "relu6", "silu", "gelu", "elu", "celu", "selu", "leaky_relu", "leaky_relu_", "sigmoid", "sigmoid_",
    "tanh", "tanh_", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "mish", "softplus", "logsigmoid",
    "clamp", "clamp_", "abs", "exp", "sqrt", "rsqrt", "square", "pow", "erf", "sin", "cos", "reciprocal", "log",
)  # fmt: skip
COPYING_NAMES = ("contiguous", "clone", "float", "to", "type", "type_as", "detach", "half", "double", "neg")
#: Functions of two tensors entry by entry; sums apart from products and others.
SUM_NAMES = ("add", "add_", "sub", "sub_", "iadd", "isub")
PRODUCT_NAMES = ("mul", "mul_", "imul")
OTHER_BINARY_NAMES = ("truediv", "itruediv", "div", "div_", "maximum", "minimum")

#: Functions of each channel's map.
LINEAR_SPATIAL_NAMES = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
                        "adaptive_avg_pool3d", "interpolate", "upsample")  # fmt: skip
OTHER_SPATIAL_NAMES = ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
                       "adaptive_max_pool3d")  # fmt: skip
#: Functions that take one value from axes that are named.
REDUCING_NAMES = ("mean", "sum", "amax", "amin")


def _functions(names: tuple[str, ...]) -> frozenset[Any]:
    spaces = (torch, F, operator, Tensor)
    found = [getattr(space, name, None) for name in names for space in spaces]
    aliases = [getattr(torch._C._nn, name, None) for name in names]  # noqa: SLF001 - where F.gelu and others come from
    return frozenset(function for function in (*found, *aliases) if callable(function))


class Family:
    """Functions and methods of one kind."""

    def __init__(self, *groups: tuple[str, ...]) -> None:
        """Take their names."""
        self.names = frozenset(name for group in groups for name in group)
        self._functions = _functions(tuple(self.names))

    def __contains__(self, target: object) -> bool:
        """Whether a node's target is one of them."""
        return target in self.names if isinstance(target, str) else target in self._functions


POINTWISE = Family(POINTWISE_NAMES)
COPYING = Family(COPYING_NAMES)
SUMS = Family(SUM_NAMES)
PRODUCTS = Family(PRODUCT_NAMES)
BINARY = Family(SUM_NAMES, PRODUCT_NAMES, OTHER_BINARY_NAMES)
LINEAR_SPATIAL = Family(LINEAR_SPATIAL_NAMES)
OTHER_SPATIAL = Family(OTHER_SPATIAL_NAMES)
REDUCING = Family(REDUCING_NAMES)
CONCATENATING = Family(("cat", "concat", "concatenate"))
FLATTENING = Family(("flatten", "view", "reshape"))
SIZES = Family(("size",))
PADDING = Family(("pad",))


def name_of(target: object) -> str:
    """Name a node's target for people."""
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))
