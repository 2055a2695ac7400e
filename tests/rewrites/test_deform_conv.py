"""A convolution becomes deformable and computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from spdify.blocks import DeformableConv2d
from spdify.graph import survey
from spdify.rewrites import DeformConv
from spdify.rewrites.deform_conv import DeformConvParams
from spdify.sources import describe_inputs
from tests.rewrites.sites import check_refused, check_transformed, site_of

SIZES = [(9, 11), (8, 7)]


def rewrite(**params: Any) -> DeformConv:  # noqa: ANN401 - parameters of the rewrite
    return DeformConv(DeformConvParams(**({"stages": ":"} | params)))


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.MaxPool2d(2), {}, "is for conv, this is a max_pool"),
        (nn.Conv1d(4, 8, 3), {}, "for two-dimensional convolutions, this one has 1 axes"),
        (nn.Conv3d(4, 8, 3), {}, "this one has 3 axes"),
        (nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), {}, "its padding is reflect"),
        (nn.Conv2d(4, 8, 3), {"operation": "forward:conv2d:0"}, "no module to change"),
        (nn.Conv2d(4, 8, 3), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.Conv2d(4, 8, 3), {"constants": {"experts": 4}}, "differs from sample to sample"),
        (nn.Conv2d(4, 8, 3), {"constants": {"eps": 1e-6}}, "its weight is standardised"),
        (nn.Conv2d(4, 8, 3), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(rewrite(), site_of(module, channels=4, **fields), reason)


def test_same_padding_is_refused() -> None:
    site = site_of(nn.Conv2d(4, 8, 3, 2))
    window = site.geometry.model_copy(update={"padding_mode": "same"})
    check_refused(rewrite(), site.model_copy(update={"geometry": window}), "its padding is same")


def test_offset_groups_are_as_many_as_divide_the_channels() -> None:
    block = rewrite(offset_groups=6).build(site_of(nn.Conv2d(4, 8, 3)))
    assert (block.offset_groups, block.offset.out_channels) == (2, 2 * 2 * 9)


@pytest.mark.parametrize("params", [{"offset_groups": 0}, {"modulated": 1}, {"stages": "last"}, {"taps": 3}])
def test_parameters_that_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rewrite(**params)


def test_stages_are_chosen_and_single_taps_kept() -> None:
    site = site_of(nn.Conv2d(4, 8, 3), stage=2, stages=4)
    assert rewrite(stages="-1").keep(site) == "stages = -1"
    assert rewrite(stages="2").keep(site) is None
    assert rewrite().keep(site_of(nn.Conv2d(4, 8, 1, 2))) == "a window of one tap"


@pytest.mark.parametrize("params", [{}, {"modulated": False}, {"offset_groups": 2}])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 8, 3, 1, 1),
        nn.Conv2d(4, 8, 3, 2, 1, bias=False),
        nn.Conv2d(4, 8, (3, 2), (2, 1), (2, 0), (1, 2), groups=2),
        nn.Conv2d(4, 4, 5, 1, 2, groups=4),
        nn.Conv2d(4, 8, 2, 2),
    ],
    ids=str,
)
def test_transformed(module: nn.Module, params: dict[str, Any]) -> None:
    block = check_transformed(rewrite(**params), module, SIZES)
    assert isinstance(block, DeformableConv2d)
    assert (block.mask is None) == (params.get("modulated") is False)


def test_weights_are_the_same_each_time() -> None:
    site, old = site_of(nn.Conv2d(4, 8, 3)), {"weight": torch.randn(8, 4, 3, 3), "bias": torch.randn(8)}
    first, second = (rewrite().weights(site, old) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["weight"] is old["weight"]


@pytest.mark.parametrize(("taps", "refused"), [(4, True), (3, False)])
def test_padding_that_differs_between_sides_is_refused(taps: int, refused: bool) -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, taps, padding="same")), describe_inputs(torch.zeros(1, 3, 9, 9))
    seen = survey(model, inputs, frozenset({"convolution"}))
    reason = rewrite().check(seen.sites[0])
    assert reason == ("it pads more on one side than on the other" if refused else None)
