"""Networks of integers are refused, those with places for a later quantization are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.ao.nn import quantized

import spdify
from spdify.errors import RefusedError
from spdify.sources import BuildOptions, build
from spdify.sources.quantized import require_floats

if TYPE_CHECKING:
    from collections.abc import Callable


def dynamic() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4)), {nn.Linear})


def tensor_only() -> nn.Module:
    model = nn.Module()
    model.register_buffer("table", torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8))
    return model


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(quantized.Conv2d(3, 4, 3)), lambda: quantized.Linear(3, 4), dynamic, tensor_only]
)
def test_quantized_modules_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(RefusedError, match="Cannot convert net: it is quantized already") as caught:
        require_floats(make(), "net")
    assert "Convert the floating-point network" in caught.value.hint


def test_a_user_s_module_is_refused_before_anything_is_done() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), quantized.Conv2d(4, 4, 3, 2))
    with pytest.raises(RefusedError, match="1: Conv2d"):
        spdify.convert(model, input_size=(3, 16, 16))


def test_torchvision_s_quantized_networks() -> None:
    name = "tv:quantized_mobilenet_v2"
    build(name)  # floating point, with places for quantization
    with pytest.raises(RefusedError, match="torchvision:quantized_mobilenet_v2: it is quantized already"):
        build(name, BuildOptions(model_kwargs={"quantize": True}))


def test_places_for_a_later_quantization_are_floats() -> None:
    require_floats(nn.Sequential(quantized.FloatFunctional(), torch.ao.quantization.QuantStub()), "net")
