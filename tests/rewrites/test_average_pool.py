"""An average pool becomes SPD and a depthwise convolution with the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.layers import AvgPool2dSame
from torch import nn

from spdify.blocks import SPDAvgPool, SPDConv, SPDPerChannels
from spdify.rewrites import ReplaceAveragePool
from spdify.rewrites.average_pool import AveragePoolParams
from tests.rewrites.sites import check_refused, check_transformed, site_of, surveyed

SIZES = {1: [(17,), (20,)], 2: [(15, 17), (16, 13), (18, 20)], 3: [(9, 11, 12), (10, 9, 11)]}
DENSE = ReplaceAveragePool(AveragePoolParams(form="conv"))
REWRITE = ReplaceAveragePool(AveragePoolParams())


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.MaxPool2d(2), {}, "is for avg_pool, this is a max_pool"),
        (nn.Conv2d(4, 8, 3, 2), {}, "is for avg_pool, this is a conv"),
        (nn.AvgPool2d(2), {"operator": "slice"}, "this is a slice"),
        (nn.AvgPool2d(2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.AvgPool2d(2), {"obstacles": ("AvgPool2dSame computes more than AvgPool2d",)}, "computes more"),
        (nn.AvgPool2d(2), {"obstacles": ("it runs with different windows or channel counts",)}, "channel counts"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(REWRITE, site_of(module, channels=4, **fields), reason)


@pytest.mark.parametrize(
    "module",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(1, 2),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False, divisor_override=1),
        nn.AvgPool2d((1, 5), (3, 2), (0, 2), ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, 5, 1),
        nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        nn.AvgPool1d(4, 3, 2, ceil_mode=True),
        nn.AvgPool3d(3, 2, 1, count_include_pad=False, ceil_mode=True),
        nn.AvgPool3d((1, 2, 2), (1, 2, 2)),
    ],
    ids=str,
)
def test_transformed(module: nn.Module) -> None:
    dims = int(type(module).__name__[-2])
    block = check_transformed(REWRITE, module, SIZES[dims], channels=3)
    assert isinstance(block, SPDAvgPool)


def test_another_divisor_is_seen() -> None:
    class Wrong(ReplaceAveragePool):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            return {name: tensor * 1.01 for name, tensor in super().weights(site, old).items()}

    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(AveragePoolParams()), nn.AvgPool2d(2), SIZES[2], channels=3)


def test_weights_are_given_in_full_precision_and_draw_nothing() -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        weight = REWRITE.weights(site_of(nn.AvgPool2d(3, 2, 1), channels=3), {})["weight"]
    assert (weight.dtype, weight.device.type) == (torch.float64, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("params", [{"form": "mean"}, {"form": True}, {"kernel": "odd"}])
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AveragePoolParams(**params)


@pytest.mark.parametrize(
    "module",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
        nn.AvgPool1d(2, ceil_mode=True),
        nn.AvgPool3d((1, 2, 2), (1, 2, 2)),
    ],
    ids=str,
)
def test_the_form_of_the_paper(module: nn.Module) -> None:
    dims = int(type(module).__name__[-2])
    block = check_transformed(DENSE, module, SIZES[dims], channels=3)
    assert isinstance(block, SPDConv)
    assert block.groups == 1


@pytest.mark.parametrize(
    "module",
    [
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, ceil_mode=True),
    ],
    ids=str,
)
def test_the_form_of_the_paper_is_approximate_where_the_divisor_varies(module: nn.AvgPool2d) -> None:
    site = site_of(module, channels=3)
    assert REWRITE.claim(site).value == "exact"
    assert DENSE.claim(site).value == "approximate"
    block = DENSE.build(site).double()
    block.load_state_dict(DENSE.weights(site, {}))
    x = torch.randn(2, 3, 14, 17, dtype=torch.float64)
    assert block(x).shape == module(x).shape
    assert (block(x) - module(x)).abs().max() > 1e-3


def test_the_form_of_the_paper_with_same_padding() -> None:
    for module in (AvgPool2dSame(3, 2), AvgPool2dSame(2, 3)):
        check_transformed(DENSE, module, SIZES[2], site=surveyed(module, (3, 17, 16)))


@pytest.mark.parametrize(
    "module",
    [
        AvgPool2dSame(3, 2),
        AvgPool2dSame(2, 2),
        AvgPool2dSame(3, 2, count_include_pad=False, ceil_mode=True),
        AvgPool2dSame((1, 4), (3, 2)),
        AvgPool2dSame(2, 3, ceil_mode=True),
    ],
    ids=str,
)
def test_same_padding(module: nn.Module) -> None:
    site = surveyed(module, (3, 17, 16))
    assert site.geometry.padding_mode == "same"
    assert isinstance(check_transformed(REWRITE, module, SIZES[2], site=site), SPDAvgPool)


def test_one_block_for_each_channel_count() -> None:
    site = site_of(nn.AvgPool2d(3, 2, 1, count_include_pad=False), channels=3).model_copy(update={"channels": (3, 5)})
    block = check_transformed(REWRITE, nn.AvgPool2d(3, 2, 1, count_include_pad=False), SIZES[2], site=site)
    assert isinstance(block, SPDPerChannels)
    assert set(block.state_dict()) == {"blocks.3.weight", "blocks.5.weight"}
