"""What spdify knows about classes of timm whose `forward` is their own: one adapter per class.

A subclass of a convolution or pool that computes something of its own is refused, since nobody knows what it
computes. An adapter knows: it says which operator a class stands for, how to read its window, and which constants a
rewrite needs. It speaks for exactly one class; a subclass has its window read in the same way, so that both eyes
agree about it, and is still refused. timm is only looked at where a model has already imported it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spdify.graph.windows import geometry_of, per_axis, torch_geometry, torch_operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spdify.graph.operations import SeenOperator
    from spdify.records import Geometry, ParamValue, Shape, Site


def _always(_module: Any) -> bool:  # noqa: ANN401 - attributes of timm's classes, which have no types
    return True


def _never(_module: Any) -> bool:  # noqa: ANN401 - as above
    return False


@dataclass(frozen=True)
class Adapter:
    """How one class is read.

    Attributes:
        operator: What it computes.
        same: Whether it pads zeros as TensorFlow does, by the size of each input.
        constants: Attributes that a rewrite needs, by the name that a site gives them.
        tensors: Parameters that it may hold; a rewrite knows what each is for.
    """

    operator: SeenOperator
    same: Callable[[Any], bool] = _never
    constants: tuple[tuple[str, str], ...] = ()
    tensors: tuple[str, ...] = ("weight", "bias")


STANDARDISED = (("eps", "eps"),)
SCALED = (*STANDARDISED, ("gain_scale", "scale"))

#: By name of the class, which is one of `timm.layers`.
TIMM: dict[str, Adapter] = {
    "Conv2dSame": Adapter("conv", same=_always),
    "MaxPool2dSame": Adapter("max_pool", same=_always),
    "AvgPool2dSame": Adapter("avg_pool", same=_always),
    "StdConv2d": Adapter("conv", constants=STANDARDISED),
    "StdConv2dSame": Adapter("conv", same=lambda module: bool(module.same_pad), constants=STANDARDISED),
    "ScaledStdConv2d": Adapter("conv", constants=SCALED, tensors=("weight", "bias", "gain")),
    "ScaledStdConv2dSame": Adapter(
        "conv", same=lambda module: bool(module.same_pad), constants=SCALED, tensors=("weight", "bias", "gain")
    ),
    "BlurPool2d": Adapter("blur_pool", tensors=()),
    "CondConv2d": Adapter(
        "conv", same=lambda module: bool(module.dynamic_padding), constants=(("experts", "num_experts"),)
    ),
}


def adapter_of(module: nn.Module) -> Adapter | None:
    """Give the adapter of a module's very class; None for every other class, subclasses too."""
    return _of_class(type(module))


def _nearest(module: nn.Module) -> Adapter | None:
    """Give the adapter of a module's class or of the nearest one that it derives from."""
    return next((adapter for kind in type(module).__mro__ if (adapter := _of_class(kind)) is not None), None)


def _of_class(kind: type) -> Adapter | None:
    """Give the adapter of one class: it must be timm's own, which lies where it says that it was made."""
    name, home = kind.__name__, kind.__module__
    if name not in TIMM or not home.startswith("timm.layers."):
        return None
    return TIMM[name] if getattr(sys.modules.get(home), name, None) is kind else None


def module_operator(module: nn.Module) -> SeenOperator | None:
    """Name the operator that a called module stands for; None where it stands for none."""
    adapter = _nearest(module)
    return adapter.operator if adapter is not None else torch_operator(module)


def module_geometry(module: nn.Module, operator: SeenOperator, input_shape: Shape, output_shape: Shape) -> Geometry:
    """Read the window of a called convolution or pool."""
    adapter = _nearest(module)
    if adapter is None:
        return torch_geometry(module, operator, input_shape, output_shape)
    if adapter.operator == "blur_pool":
        return _blur_geometry(module, input_shape, output_shape)
    geometry = torch_geometry(module, operator, input_shape, output_shape)
    # None of these classes looks at a padding_mode; CondConv2d lays a batch over the channels of its operator.
    found: dict[str, Any] = {"padding_mode": "same" if adapter.same(module) else "zeros"}
    if operator == "conv":
        found |= {name: getattr(module, name) for name in ("in_channels", "out_channels")}
    return geometry.model_copy(update=found)


def _blur_geometry(module: Any, input_shape: Shape, output_shape: Shape) -> Geometry:  # noqa: ANN401 - timm's class
    """Read a `BlurPool2d`; its `padding` is that of `torch.nn.functional.pad`, the same on all sides."""
    return geometry_of(
        "blur_pool", 2, input_shape, output_shape, kernel_size=module.filt_size, stride=module.stride,
        padding=_blur_padding(module), padding_mode=_blur_padding_mode(module),
    )  # fmt: skip


def _blur_padding(module: Any) -> Shape:  # noqa: ANN401 - timm's class
    return per_axis(module.padding[::-2], 2)  # left, right, top, bottom


def _blur_padding_mode(module: Any) -> str:  # noqa: ANN401 - timm's class
    return "zeros" if module.pad_mode == "constant" else str(module.pad_mode)


def constants_of(module: nn.Module) -> dict[str, ParamValue]:
    """Give what a rewrite needs to know of a module beside its window; empty for most."""
    adapter = adapter_of(module)
    return {name: getattr(module, attribute) for name, attribute in adapter.constants} if adapter is not None else {}


def unlike(module: nn.Module, site: Site) -> str:
    """Say in what a module differs from the one that a site was made for, as far as no tensor's shape shows it.

    Two networks of the same structure may differ in such constants; the plan of one must not be applied to the other.
    """
    adapter = adapter_of(module)
    if adapter is None:
        return ""
    expected: dict[str, object] = {**site.constants, "padding_mode": site.geometry.padding_mode}
    found: dict[str, object] = {**constants_of(module), "padding_mode": "same" if adapter.same(module) else "zeros"}
    if adapter.operator == "blur_pool":
        window = site.geometry
        expected |= {"filt_size": window.kernel[0], "stride": window.stride[0], "padding": window.padding}
        found |= {name: getattr(module, name) for name in ("filt_size", "stride")}
        found |= {"padding_mode": _blur_padding_mode(module), "padding": _blur_padding(module)}
    wrong = [key for key in found if found[key] != expected.get(key)]
    return ", ".join(f"{key} {found[key]}, planned {expected.get(key)}" for key in wrong)
