"""What a convolution's site says beside its window: its tensors, standardisation, experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spdify.records import Shape, Site


def tensor_shapes(site: Site) -> dict[str, Shape]:
    """Give name and shape of the tensors of a convolution: weight, bias and gain; of experts, each flat in a row."""
    window, count = site.geometry, experts(site)
    weight: Shape = (window.out_channels, window.in_channels // window.groups, *window.kernel)
    if count:
        shapes: dict[str, Shape] = {"weight": (count, math.prod(weight)), "bias": (count, window.out_channels)}
    else:
        shapes = {"weight": weight, "bias": (window.out_channels,)}
    if not window.bias:
        del shapes["bias"]
    return shapes | ({"gain": (window.out_channels, *[1] * (window.dims + 1))} if gain_scale(site) else {})


def is_standardised(site: Site) -> bool:
    """Whether the weight is standardised at every run."""
    return "eps" in site.constants


def gain_scale(site: Site) -> float | None:
    """Give the constant beside the gain of a scaled standardised convolution; None where there is no gain."""
    scale = site.constants.get("gain_scale")
    return None if scale is None else float(scale)


def experts(site: Site) -> int:
    """Give the number of weights that are mixed for each sample; 0 where there is one for all."""
    return int(site.constants.get("experts", 0))


def refuse_other_weights(site: Site) -> str | None:
    """Give the reason where a convolution is none of `torch.nn` with a weight of its own; None for pools too."""
    if site.operator != "conv":
        return None
    if site.operation:
        return "a functional convolution has no module to change"
    if experts(site) or is_standardised(site):
        return f"the weight of a {site.type_name} is made at each run: only plain weights are taken"
    return None


def plain_arguments(site: Site) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give what a convolution of a site's window is made with: arguments by place, and by name."""
    window = site.geometry
    by_place = (
        window.in_channels, window.out_channels, window.kernel, window.stride, window.padding, window.dilation
    )  # fmt: skip
    return by_place, {"groups": window.groups, "bias": window.bias, "padding_mode": window.padding_mode}
