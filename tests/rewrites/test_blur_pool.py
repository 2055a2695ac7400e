"""A blur pool becomes SPD and a depthwise convolution with the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.layers import BlurPool2d
from torch import nn

from spdify.blocks import SPDConv, SPDPerChannels
from spdify.blocks.blurring import binomial_filter
from spdify.graph import survey
from spdify.records import Inputs, InputSpec
from spdify.rewrites import ReplaceBlurPool
from spdify.rewrites.base import NoParams
from tests.rewrites.sites import check_refused, check_transformed, site_of, surveyed

SIZES = [(15, 17), (16, 13), (18, 20)]
REWRITE = ReplaceBlurPool(NoParams())


def blur_site(**fields: Any) -> Any:  # noqa: ANN401 - fields of Site
    return surveyed(BlurPool2d(4), (4, 17, 16)).model_copy(update=fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"operator": "avg_pool"}, "is for blur_pool, this is a avg_pool"),
        ({"operator": "conv"}, "is for blur_pool, this is a conv"),
        ({"path": ""}, "torch.nn.Sequential(model)"),
        ({"obstacles": ("it has forward hooks",)}, "forward hooks"),
        ({"geometry": site_of(nn.AvgPool2d((1, 3)), channels=4).geometry}, "not a square one"),
    ],
)
def test_refused(fields: dict[str, Any], reason: str) -> None:
    check_refused(REWRITE, blur_site(**fields), reason)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant", "replicate"])
@pytest.mark.parametrize("channels", [4, 1, None])
@pytest.mark.parametrize(("taps", "stride"), [(3, 2), (5, 2), (4, 2), (2, 2), (3, 4), (7, 3)])
def test_transformed(taps: int, stride: int, channels: int | None, pad_mode: str) -> None:
    module = BlurPool2d(channels, taps, stride, pad_mode)
    site = surveyed(module, (channels or 4, 17, 16))
    assert (site.operator, site.type_name, site.geometry.kernel) == ("blur_pool", "BlurPool2d", (taps, taps))
    block = check_transformed(REWRITE, module, SIZES, site=site)
    assert type(block) is SPDConv
    assert block.groups == (channels or 4)
    assert block.weight.requires_grad


def test_even_filters_change_odd_sizes_as_they_did() -> None:
    module = BlurPool2d(3, 4)
    block = REWRITE.build(surveyed(module, (3, 56, 57)))
    x = torch.randn(1, 3, 56, 57)
    assert block(x).shape == module(x).shape == (1, 3, 29, 29)


def test_a_stride_of_1_is_no_site() -> None:
    seen = survey(nn.Sequential(BlurPool2d(3, 3, 1)), Inputs(args=(InputSpec(shape=(1, 3, 9, 9)),)))
    assert (seen.sites, seen.disagreements) == ((), ())


def test_one_block_for_each_channel_count() -> None:
    module = BlurPool2d(None)
    site = surveyed(module, (3, 17, 16)).model_copy(update={"channels": (3, 5)})
    assert isinstance(check_transformed(REWRITE, module, SIZES, site=site), SPDPerChannels)


def test_another_filter_in_the_buffer_is_seen() -> None:
    module = BlurPool2d(4)
    module.filt[0, 0, 0, 0] += 0.01
    with pytest.raises(AssertionError, match="not close"):
        check_transformed(REWRITE, module, SIZES, site=surveyed(module, (4, 17, 16)))


def test_the_filter_is_that_of_the_class() -> None:
    for taps in (2, 3, 4, 5, 7):
        found = binomial_filter((taps, taps), torch.empty(0, dtype=torch.float64))
        assert torch.equal(found.float(), BlurPool2d(1, taps).filt[0, 0])
        assert found.sum() == 1


def test_it_takes_no_params() -> None:
    with pytest.raises(ValidationError):
        NoParams(filt_size=3)  # type: ignore[call-arg] - as said
