"""A max pool becomes SPD and a tournament with the same function, or the paper's SPD-Conv."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn
from torch.func import functional_call

from spdify.blocks import SPDConv, SPDMaxPool, SPDPerChannels
from spdify.rewrites import ReplaceMaxPool
from spdify.rewrites.max_pool import MaxPoolParams
from tests.rewrites.sites import check_refused, check_transformed, site_of, surveyed

SIZES = {1: [(17,), (20,)], 2: [(15, 17), (16, 13), (18, 20)], 3: [(9, 11, 12), (10, 9, 11)]}


def rewrite(form: Any = "tournament") -> ReplaceMaxPool:  # noqa: ANN401 - some are wrong on purpose
    return ReplaceMaxPool(MaxPoolParams(form=form))


@pytest.mark.parametrize("form", ["tournament", "conv"])
@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.AvgPool2d(2), {}, "is for max_pool, this is a avg_pool"),
        (nn.Conv2d(4, 8, 3, 2), {}, "is for max_pool, this is a conv"),
        (nn.MaxPool2d(2), {"operator": "slice"}, "this is a slice"),
        (nn.MaxPool2d(2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.MaxPool2d(2), {"obstacles": ("it returns indices",)}, "it returns indices"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str, form: str) -> None:
    check_refused(rewrite(form), site_of(module, channels=4, **fields), reason)


def test_kept_when_told_so() -> None:
    site = site_of(nn.MaxPool2d(2), channels=4)
    assert "stay" in (rewrite("keep").keep(site) or "")
    assert rewrite().keep(site) is None
    assert rewrite("conv").keep(site) is None


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(1, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d(3, 3, 1),
        nn.MaxPool2d(2, 5, 1, ceil_mode=True),
        nn.MaxPool2d(3, 2, 0, dilation=2),
        nn.MaxPool2d(3, 2, 1, dilation=2),
        nn.MaxPool2d(2, 2, 0, (1, 2), ceil_mode=True),
        nn.MaxPool2d((1, 4), (2, 3), (0, 2)),
        nn.MaxPool1d(3, 2, 1),
        nn.MaxPool1d(5, 3, 2, ceil_mode=True),
        nn.MaxPool3d(3, 2, 1),
        nn.MaxPool3d((1, 2, 2), (1, 2, 2), ceil_mode=True),
    ],
    ids=str,
)
def test_transformed(module: nn.Module) -> None:
    torch.manual_seed(0)
    dims = int(type(module).__name__[-2])
    block = check_transformed(rewrite(), module, SIZES[dims], channels=3)
    assert isinstance(block, SPDMaxPool)


def test_another_difference_is_seen() -> None:
    class Wrong(ReplaceMaxPool):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            new = super().weights(site, old)
            return new | {"tournament.1": new["tournament.1"].abs()}

    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(MaxPoolParams()), nn.MaxPool2d(2), SIZES[2], channels=3)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, dilation=2)], ids=str)
def test_the_convolution_starts_as_the_mean(pool: nn.MaxPool2d) -> None:
    site = site_of(pool, channels=3)
    change = rewrite("conv")
    assert change.claim(site).value == "approximate"
    block = change.build(site).double()
    assert isinstance(block, SPDConv)
    assert block.bias is None
    x = torch.randn(2, 3, 13, 16, dtype=torch.float64)
    y = functional_call(block, change.weights(site, {}), (x,))
    assert y.shape == pool(x).shape
    kernel = site.geometry.kernel
    taps = torch.full((3, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=torch.float64)
    mean = nn.functional.conv2d(x, taps, None, pool.stride, pool.padding, pool.dilation, groups=3)
    torch.testing.assert_close(y, mean)


def test_the_claim_of_the_tournament() -> None:
    claim = rewrite().claim(site_of(nn.MaxPool2d(2), channels=3))
    assert claim.value == "exact"
    assert "ties" in claim.training


@pytest.mark.parametrize("form", ["tournament", "conv"])
def test_weights_draw_nothing_and_are_made_on_the_cpu(form: str) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        new = rewrite(form).weights(site_of(nn.MaxPool2d(3, 2, 1), channels=3), {})
    assert {tensor.device.type for tensor in new.values()} == {"cpu"}
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("params", [{"form": "mean"}, {"form": True}, {"kernel": "odd"}])
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MaxPoolParams(**params)


@pytest.mark.parametrize(
    "module",
    [MaxPool2dSame(3, 2), MaxPool2dSame((1, 2), (3, 2)), MaxPool2dSame(3, 2, dilation=2), MaxPool2dSame(1, 2)],
    ids=str,
)
def test_same_padding(module: nn.Module) -> None:
    torch.manual_seed(0)
    site = surveyed(module, (3, 17, 16))
    assert site.geometry.padding_mode == "same"
    assert isinstance(check_transformed(rewrite(), module, SIZES[2], site=site), SPDMaxPool)


def test_same_padding_of_the_convolution_gives_the_sizes_of_the_pool() -> None:
    site = surveyed(MaxPool2dSame(3, 2), (3, 17, 16))
    block = rewrite("conv").build(site)
    for size in SIZES[2]:
        x = torch.randn(2, 3, *size)
        assert block(x).shape == MaxPool2dSame(3, 2)(x).shape


@pytest.mark.parametrize("form", ["tournament", "conv"])
def test_one_block_for_each_channel_count(form: str) -> None:
    site = site_of(nn.MaxPool2d(3, 2, 1), channels=3).model_copy(update={"channels": (3, 5)})
    change = rewrite(form)
    block = change.build(site).double()
    assert isinstance(block, SPDPerChannels)
    block.load_state_dict(change.weights(site, {}))
    for channels in (3, 5):
        one = site_of(nn.MaxPool2d(3, 2, 1), channels=channels)
        alone = change.build(one).double()
        alone.load_state_dict(change.weights(one, {}))
        x = torch.randn(2, channels, 9, 10, dtype=torch.float64)
        torch.testing.assert_close(block(x), alone(x))
    if form == "tournament":
        check_transformed(change, nn.MaxPool2d(3, 2, 1), SIZES[2], site=site)
