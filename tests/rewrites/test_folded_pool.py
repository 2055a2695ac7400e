"""A pool becomes space-to-depth, and the next convolution takes all positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.layers import AvgPool2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from spdify.blocks import SpaceToDepth, SPDConv, SPDPerChannels
from spdify.records import Layout, Site
from spdify.rewrites import FoldPool
from spdify.rewrites.folded_pool import FoldPoolParams
from tests.rewrites.sites import check_refused, check_transformed, site_of, surveyed

SIZES = {1: [(17,), (20,)], 2: [(15, 17), (16, 13), (18, 20)], 3: [(9, 11, 12), (10, 9, 11)]}
FOLDED = [
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, divisor_override=9),
    nn.AvgPool2d((1, 3)),
    nn.AvgPool2d(2, ceil_mode=True),
    nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d((2, 1), ceil_mode=True),
    nn.AvgPool2d(3, ceil_mode=True, divisor_override=9),
    nn.AvgPool1d(3),
    nn.AvgPool1d(2, ceil_mode=True),
    nn.AvgPool3d((1, 2, 2), ceil_mode=True),
]
UNIFORM = [
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2),
    nn.AvgPool2d(1, 2),
    nn.AvgPool2d(1, 2, ceil_mode=True),
    nn.AvgPool2d(2, divisor_override=1),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
    nn.AvgPool2d(2, 2, 1, ceil_mode=True),  # gives no window more than without
    nn.AvgPool3d(3, 2, 1),
]
BY_POSITION = [
    nn.AvgPool2d(3, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool2d(3, 2, ceil_mode=True),
]


def rewrite(**params: Any) -> FoldPool:  # noqa: ANN401 - parameters of the rewrite
    return FoldPool(FoldPoolParams(**params))


def site_in(module: nn.Module, **fields: Any) -> Site:  # noqa: ANN401 - fields of Site
    return site_of(module, channels=3, **fields)


@pytest.mark.parametrize("channels", ["carry", "reduce"])
@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.Conv2d(4, 8, 3, 2), {}, "is for avg_pool and max_pool, this is a conv"),
        (nn.AvgPool2d(2), {"operator": "slice"}, "this is a slice"),
        (nn.AvgPool2d(2), {"operator": "blur_pool"}, "this is a blur_pool"),
        (nn.AvgPool2d(2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.MaxPool2d(2), {"obstacles": ("it returns indices",)}, "it returns indices"),
        (nn.AvgPool2d(2), {"obstacles": ("AvgPool2dSame computes more than AvgPool2d",)}, "computes more"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str, channels: str) -> None:
    check_refused(rewrite(channels=channels), site_in(module, **fields), reason)


def test_max_pools_are_kept_when_told_so() -> None:
    keeping = rewrite(max_pool="keep")
    assert "stay" in (keeping.keep(site_in(nn.MaxPool2d(2))) or "")
    assert keeping.keep(site_in(nn.AvgPool2d(2))) is None
    assert rewrite().keep(site_in(nn.MaxPool2d(2))) is None


@pytest.mark.parametrize("module", FOLDED, ids=str)
def test_folded(module: nn.Module) -> None:
    torch.manual_seed(0)
    site = site_in(module)
    copies = torch.tensor(site.geometry.stride).prod().item()
    assert rewrite().leaves(site) == Layout(runs=((3, copies),), how="mean")
    dims = int(type(module).__name__[-2])
    assert isinstance(check_transformed(rewrite(), module, SIZES[dims], channels=3), SpaceToDepth)
    assert isinstance(check_transformed(rewrite().reduced(), module, SIZES[dims], channels=3), SPDConv)


@pytest.mark.parametrize("module", UNIFORM, ids=str)
def test_another_window_is_a_convolution(module: nn.Module) -> None:
    torch.manual_seed(0)
    assert rewrite().leaves(site_in(module)) is None
    dims = int(type(module).__name__[-2])
    assert isinstance(check_transformed(rewrite(), module, SIZES[dims], channels=3), SPDConv)


@pytest.mark.parametrize("module", BY_POSITION, ids=str)
def test_a_divisor_that_depends_on_the_position_is_approximate(module: nn.AvgPool2d) -> None:
    site, change = site_in(module), rewrite()
    assert change.leaves(site) is None
    claim = change.claim(site)
    assert claim.value == "approximate"
    assert "fewer positions" in claim.training
    block = change.build(site).double()
    block.load_state_dict(change.weights(site, {}))
    x = torch.randn(2, 3, 14, 17, dtype=torch.float64)
    y, expected = block(x), module(x)
    assert y.shape == expected.shape
    torch.testing.assert_close(y[..., 1:3, 1:3], expected[..., 1:3, 1:3])  # away from the edges
    assert (y - expected).abs().max() > 1e-3


def test_same_padding() -> None:
    for module, folds in ((AvgPool2dSame(2, 2), True), (AvgPool2dSame(3, 3), False), (AvgPool2dSame(3, 2), False)):
        site = surveyed(module, (3, 17, 16))
        assert (rewrite().leaves(site) is not None) == folds
        block = check_transformed(rewrite(), module, SIZES[2], site=site)
        assert isinstance(block, SpaceToDepth) == folds


@pytest.mark.parametrize("edge", ["crop", "zeros"])
def test_another_edge_is_seen(edge: Any) -> None:  # noqa: ANN401 - a word
    class Wrong(FoldPool):
        def build(self, site: Any) -> nn.Module:  # noqa: ANN401 - not looked at
            return SpaceToDepth(site.geometry.stride, edge=edge)

    with pytest.raises(AssertionError, match=r"not close|do not match|not equal"):
        check_transformed(Wrong(FoldPoolParams()), nn.AvgPool2d(2, ceil_mode=True), SIZES[2], channels=3)


def test_another_share_is_seen() -> None:
    class Wrong(FoldPool):
        def leaves(self, site: Any) -> Layout | None:  # noqa: ANN401 - not looked at
            layout = super().leaves(site)
            return layout and layout.model_copy(update={"how": "select"})

    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(FoldPoolParams()), nn.AvgPool2d(2), SIZES[2], channels=3)


@pytest.mark.parametrize(
    ("module", "edge"),
    [
        (nn.MaxPool2d(2), "crop"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "crop"),
        (nn.MaxPool2d(3, 2, 1), "replicate"),
        (nn.MaxPool2d(2, ceil_mode=True), "replicate"),
        (nn.MaxPool2d(5, 3, 2), "replicate"),
        (nn.MaxPool2d((1, 3), (1, 2), (0, 1)), "replicate"),
        (nn.MaxPool2d((1, 2)), "crop"),
        (nn.MaxPool2d(3, 2), None),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), None),
        (nn.MaxPool2d((2, 3), 2, (0, 1)), None),
    ],
    ids=str,
)
def test_max_pools_have_the_sizes_of_the_pool(module: nn.MaxPool2d, edge: str | None) -> None:
    site, change = site_in(module), rewrite()
    assert change.claim(site).value == "approximate"
    assert (change.leaves(site) is None) == (edge is None)
    block = change.build(site)
    assert isinstance(block, SPDConv if edge is None else SpaceToDepth)
    assert edge is None or block.edge == edge
    block.load_state_dict(change.weights(site, {}))
    for height in range(6, 13):
        x = torch.randn(2, 3, height, height + 5)
        assert block(x).shape[2:] == module(x).shape[2:]


def test_a_max_pool_with_same_padding() -> None:
    for module in (MaxPool2dSame(3, 2), MaxPool2dSame(2, 3)):
        block = rewrite().build(surveyed(module, (3, 17, 16)))
        for size in SIZES[2]:
            x = torch.randn(2, 3, *size)
            assert block(x).shape[2:] == module(x).shape[2:]


@pytest.mark.parametrize("module", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=str)
def test_a_functional_call_is_not_folded(module: nn.Module) -> None:
    site = site_in(module, operation="forward:pool:0")
    assert rewrite().check(site) is None
    assert rewrite().leaves(site) is None
    assert isinstance(rewrite().build(site), SPDConv)


def test_one_block_for_each_channel_count() -> None:
    site = site_in(nn.AvgPool2d(2)).model_copy(update={"channels": (3, 5)})
    assert rewrite().leaves(site) is None
    assert isinstance(check_transformed(rewrite(), nn.AvgPool2d(2), SIZES[2], site=site), SPDPerChannels)


def test_reduced_keeps_the_other_parameter() -> None:
    assert rewrite(max_pool="keep").reduced().params == FoldPoolParams(channels="reduce", max_pool="keep")


def test_weights_draw_nothing_and_are_made_on_the_cpu() -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        weight = rewrite().weights(site_in(nn.AvgPool2d(3, 2, 1)), {})["weight"]
    assert (weight.dtype, weight.device.type) == (torch.float64, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("params", [{"channels": "drop"}, {"max_pool": "exact"}, {"max_pool": True}, {"form": "conv"}])
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FoldPoolParams(**params)
