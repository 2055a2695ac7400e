"""Subsampling by slices, seen by both eyes alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from spdify import convert
from spdify.graph import survey
from spdify.graph.slices import WRITTEN, Steps, steps_of_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Inputs


class Slicing(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def four_phases(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], 1)


@pytest.mark.parametrize(
    ("function", "shape", "stride"),
    [
        (lambda x: x[:, :, ::2, ::2], (3, 8, 8), (2, 2)),
        (lambda x: x[..., ::2, ::3], (3, 8, 6), (2, 3)),
        (lambda x: x[:, :, ::2][..., ::2], (3, 8, 8), (2, 2)),
        (lambda x: x[:, :, 1:, 1:][:, :, ::2, ::2], (3, 8, 8), (2, 2)),
        (lambda x: x[:, :, -9::2, ::2], (3, 5, 8), (2, 2)),
        (lambda x: x.permute(0, 2, 3, 1)[:, ::2, ::2], (3, 8, 8), (2, 2)),
        (lambda x: x[:, 0, ::2, ::2], (1, 8, 8), (2, 2)),
        (lambda x: x[:, :2, 1::2, 1::2], (2, 8, 8), (2, 2)),
    ],
)
def test_a_slice_along_two_axes_is_a_site(
    function: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    stride: tuple[int, int],
    inputs_of: Callable[..., Inputs],
) -> None:
    seen = survey(Slicing(function), inputs_of(3, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert (site.operator, site.operation, site.geometry.stride) == ("slice", "slice:0", stride)
    assert site.calls[0].output == (1, *shape)


@pytest.mark.parametrize(
    "function",
    [lambda x: x[:, ::2, ::2, ::2], lambda x: x[:, ::2][..., ::2, ::2], lambda x: x[:, 1::2][..., 1::2, ::2]],
)
def test_a_slice_along_three_axes_is_one_site(
    function: Callable[[Tensor], Tensor], inputs_of: Callable[..., Inputs]
) -> None:
    seen = survey(Slicing(function), inputs_of(4, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert site.geometry.stride == (2, 2, 2)


def test_a_slice_of_a_volume_is_one_site(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(Slicing(lambda x: x[:, :, ::2, ::2, ::2]), inputs_of(3, 8, 8, 8))
    assert not seen.disagreements
    assert [site.geometry.stride for site in seen.sites] == [(2, 2, 2)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[..., ::2],  # rotary encodings
        lambda x: torch.stack([x[..., ::2], x[..., 1::2]], -1),
        lambda x: x[:, :, ::2][:, :, ::2],  # the same axis twice
        lambda x: x[:, :, 1:, ::2],
        lambda x: x[:, ::2, 0, ::2],
        lambda x: x[:, :, 2:14, 2:14],
        lambda x: x[::2, :, ::2],
    ],
)
def test_other_slices_are_no_sites(function: Callable[[Tensor], Tensor], inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(Slicing(function), inputs_of(3, 16, 16))
    assert (seen.sites, seen.disagreements) == ((), ())


def test_four_phases_lose_nothing(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(Slicing(four_phases), inputs_of(3, 16, 16))
    assert (seen.sites, seen.disagreements) == ((), ())
    (left,) = seen.left_alone
    assert left.reason.startswith("lossless")
    assert len(left.calls) == 4


def test_three_of_four_phases_lose_something(inputs_of: Callable[..., Inputs]) -> None:
    def three(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, a::2, b::2] for a, b in ((0, 0), (0, 1), (1, 0))], 1)

    seen = survey(Slicing(three), inputs_of(3, 16, 16))
    assert len(seen.sites) == 3
    assert not seen.disagreements


class Twice(nn.Module):
    """Slices of slices: each is a site of its own, and reads what the one before gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Slicing(lambda x: x[..., ::2, ::2]), Slicing(lambda x: x[:, :, 1::3, 1::3])

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class TwiceInOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x[..., ::2, ::2]
        return x[:, :, 1::3, 1::3]


@pytest.mark.parametrize("model", [Twice(), TwiceInOne(), Slicing(lambda x: x[:, :, ::2, ::2][:, :, 1::3, 1::3])])
def test_a_slice_of_a_slice_is_a_site_of_its_own(model: nn.Module, inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(model, inputs_of(3, 17, 31))
    assert seen.disagreements == ()
    assert [(site.geometry.stride, site.starts, site.calls[0].input) for site in seen.sites] == [
        ((2, 2), (0, 0), (1, 3, 17, 31)),
        ((3, 3), (1, 1), (1, 3, 9, 16)),
    ]


def test_slices_of_slices_keep_their_function() -> None:
    conversion = convert(TwiceInOne(), example_input=torch.randn(1, 3, 17, 31))
    assert len(conversion.plan.applied) == 2
    x = torch.randn(2, 3, 20, 23)
    assert torch.equal(conversion.model(x), x[..., ::2, ::2][:, :, 1::3, 1::3])


def test_an_expression_that_goes_on_with_another_s_step_is_refused(inputs_of: Callable[..., Inputs]) -> None:
    class Parted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x[:, :, ::2]
            return x[:, :, :, ::2, ::2]

    seen = survey(Parted(), inputs_of(3, 8, 8, 8))
    assert seen.disagreements == ()
    assert [site.obstacles for site in seen.sites] == [("several expressions step over the same tensor in turn",)]


def test_steps_along_one_axis_multiply() -> None:
    assert Steps(()).then(2, 1, 2).then(2, 1, 3).axes == ((2, 3, 6),)


def test_an_index_with_a_tensor_is_no_plain_slice() -> None:
    assert steps_of_index((slice(None), torch.tensor([0])), (1, 3, 4, 4)) is None


class InPlace(nn.Module):
    """What is done in place to a slice is done to the map that it is a view of."""

    def __init__(self, changed: str) -> None:
        super().__init__()
        self.conv, self.changed = nn.Conv2d(3, 3, 1), changed

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = x[:, :, ::2, ::2]
        if self.changed == "the slice":
            y.relu_()
        elif self.changed == "the map":
            x[:, 0] += 1
        elif self.changed == "a copy":
            y = y.clone().relu_()
        return x[:, :, :8, :8] + y


@pytest.mark.parametrize(
    ("changed", "is_refused"), [("the slice", True), ("the map", True), ("a copy", False), ("nothing", False)]
)
def test_a_view_that_is_written_to_is_left_alone(
    changed: str, is_refused: bool, inputs_of: Callable[..., Inputs]
) -> None:
    (site,) = survey(InPlace(changed), inputs_of(3, 16, 16)).sites
    assert site.obstacles == ((WRITTEN,) if is_refused else ())
