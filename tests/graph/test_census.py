"""Costs, and what a failing forward pass says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spdify.blocks import DeformableConv2d, SPDConv
from spdify.errors import TraceError
from spdify.graph import survey, take_census

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Inputs


@pytest.mark.parametrize("converted", [False, True])
def test_macs_are_those_of_pytorch(converted: bool, inputs_of: Callable[..., Inputs]) -> None:
    model = torchvision.models.resnet18().eval()
    if converted:
        model.conv1 = SPDConv(3, 64, 4, 2, bias=False)
    census = take_census(model, inputs_of(3, 64, 64), mode="eval")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert census.total_macs * 2 == counter.get_total_flops()
    assert census.macs["fc"] == 512 * 1000


@pytest.mark.parametrize("stride", [1, 2])
def test_a_deformable_convolution_counts_as_an_ordinary_one(inputs_of: Callable[..., Inputs], stride: int) -> None:
    block = DeformableConv2d(4, 6, (3, 3), (stride, stride), (1, 1), groups=2)
    census = take_census(nn.Sequential(block), inputs_of(4, 8, 8), mode="eval")
    positions = (8 // stride) ** 2
    assert dict(census.macs) == {
        "0": positions * 6 * 2 * 9,
        "0.offset": positions * 18 * 4 * 9,
        "0.mask": positions * 9 * 4 * 9,
    }
    assert not census.operations  # what the block shrinks by is its own matter


def test_calls_are_noted_in_order_with_their_first_shapes(inputs_of: Callable[..., Inputs]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1)
            self.never = nn.ReLU()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.second(self.first(input=x))
            return y.mean((2, 3)), self.second(y[:, :, ::2])

    calls = take_census(Net(), inputs_of(3, 8, 8), mode="eval").calls
    assert [(path, call.input, call.output) for path, call in calls.items()] == [
        ("", (1, 3, 8, 8), (1, 4, 2, 4)),
        ("first", (1, 3, 8, 8), (1, 4, 4, 4)),
        ("second", (1, 4, 4, 4), (1, 4, 4, 4)),
    ]


def test_activations_count_neither_views_nor_changes_in_place(inputs_of: Callable[..., Inputs]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Flatten())
    census = take_census(model, inputs_of(3, 8, 8), mode="eval")
    assert dict(census.activation_bytes) == {"0": 4 * 8 * 8 * 4}


def test_a_wrong_size_names_the_module(inputs_of: Callable[..., Inputs]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Sequential(nn.Flatten(), nn.Linear(10, 2)))
    with pytest.raises(TraceError, match=r"cannot run Sequential on \(1, 3, 8, 8\) in eval mode, at 1\.1: "):
        take_census(model, inputs_of(3, 8, 8), mode="eval")


def test_a_fault_that_the_model_catches_does_not_confuse_owners(inputs_of: Callable[..., Inputs]) -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong, self.right = nn.Linear(5, 2), nn.Conv2d(3, 4, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x)

    census = take_census(Careful(), inputs_of(3, 8, 8), mode="eval")
    assert [op.owner for op in census.operations] == ["right"]


def test_control_flow_on_numbers_runs_on_real_tensors(inputs_of: Callable[..., Inputs]) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("times", torch.tensor(2))
            self.conv = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(int(self.times)):
                x = self.conv(x)
            return x

    seen = survey(Counting(), inputs_of(3, 16, 16))
    assert not seen.disagreements
    assert [call.output for call in seen.sites[0].calls] == [(1, 3, 8, 8), (1, 3, 4, 4)]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_compiled_code_is_refused_by_name(inputs_of: Callable[..., Inputs]) -> None:
    stage = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
    for compiled in (torch.jit.script(stage), torch.jit.trace(stage, torch.zeros(1, 3, 8, 8))):
        model = nn.Sequential()
        model.add_module("stage", compiled)
        with pytest.raises(TraceError, match=r"cannot look into Sequential: stage is compiled by torch\.jit"):
            take_census(model, inputs_of(3, 8, 8), mode="eval")
