"""A strided convolution runs with stride 1, then space-to-depth."""

from __future__ import annotations

from typing import Any

import pytest
import timm.layers
import torch
from pydantic import ValidationError
from torch import nn

from spdify.blocks import ConvSPD, StdConvSPD
from spdify.records import Layout
from spdify.rewrites import UnstrideConv
from spdify.rewrites.unstrided_conv import UnstrideConvParams
from tests.rewrites.sites import check_refused, check_transformed, site_of, surveyed

SIZES = {1: [(17,), (20,)], 2: [(15, 17), (16, 13), (18, 20)], 3: [(9, 11, 12), (10, 9, 11)]}


def rewrite(channels: Any = "carry") -> UnstrideConv:  # noqa: ANN401 - some are wrong on purpose
    return UnstrideConv(UnstrideConvParams(channels=channels))


@pytest.mark.parametrize("channels", ["carry", "reduce"])
@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.MaxPool2d(2), {}, "is for conv, this is a max_pool"),
        (nn.AvgPool2d(2), {}, "is for conv, this is a avg_pool"),
        (nn.Conv2d(4, 8, 3, 2), {"operator": "slice"}, "this is a slice"),
        (nn.Conv2d(4, 8, 3, 2), {"operator": "blur_pool"}, "this is a blur_pool"),
        (nn.Conv2d(4, 8, 3, 2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.Conv2d(4, 8, 3, 2), {"operation": "forward:conv2d:0"}, "a functional convolution has no module"),
        (nn.Conv2d(4, 8, 3, 2), {"constants": {"experts": 4}}, "differs from sample to sample"),
        (nn.Conv2d(4, 8, 3, 2), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
        (nn.Conv2d(4, 8, 3, 2), {"obstacles": ("its weight is shared with b", "c")}, "shared with b; c"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str, channels: str) -> None:
    check_refused(rewrite(channels), site_of(module, channels=4, **fields), reason)


PLAIN = [
    nn.Conv2d(4, 6, 3, 2, 1),
    nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False),
    nn.Conv2d(4, 6, (1, 5), (3, 2), (0, 2), groups=2),
    nn.Conv2d(4, 6, 3, 2, 2, dilation=2, padding_mode="reflect"),
    nn.Conv2d(4, 6, 1, 2),
    nn.Conv1d(4, 6, 4, 3, 2, padding_mode="circular"),
    nn.Conv3d(4, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
]
OF_TIMM = [
    timm.layers.Conv2dSame(4, 6, 3, 2),
    timm.layers.Conv2dSame(4, 6, 1, 3),
    timm.layers.StdConv2d(4, 6, 3, 2),
    timm.layers.ScaledStdConv2d(4, 6, 3, 2, gamma=1.7),
    timm.layers.ScaledStdConv2dSame(4, 6, 4, 3, groups=2),
]


@pytest.mark.parametrize("channels", ["carry", "reduce"])
@pytest.mark.parametrize("module", PLAIN, ids=str)
def test_transformed(module: nn.Module, channels: str) -> None:
    torch.manual_seed(0)
    dims = int(type(module).__name__[-2])
    assert type(check_transformed(rewrite(channels), module, SIZES[dims])) is ConvSPD


@pytest.mark.parametrize("channels", ["carry", "reduce"])
@pytest.mark.parametrize("module", OF_TIMM, ids=str)
def test_transformed_of_timm(module: nn.Module, channels: str) -> None:
    torch.manual_seed(0)
    site = surveyed(module, (4, 17, 16))
    block = check_transformed(rewrite(channels), module, SIZES[2], site=site)
    assert type(block) is (StdConvSPD if "eps" in site.constants else ConvSPD)


@pytest.mark.parametrize("channels", ["carry", "reduce"])
def test_another_phase_is_seen(channels: str) -> None:
    class Wrong(UnstrideConv):
        def build(self, site: Any) -> ConvSPD:  # noqa: ANN401 - not looked at
            block = super().build(site)
            block.register_forward_pre_hook(lambda _, x: (x[0].roll(1, -1),))
            return block

    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(rewrite(channels).params), nn.Conv2d(4, 6, 3, 2, 1), SIZES[2])


def test_a_reduction_to_another_phase_is_seen() -> None:
    class Wrong(UnstrideConv):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            new = super().weights(site, old)
            return new | {"reduction_weight": new["reduction_weight"].roll(1, dims=1)}

    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(UnstrideConvParams(channels="reduce")), nn.Conv2d(4, 6, 3, 2, 1), SIZES[2])


def test_what_leaves() -> None:
    site = site_of(nn.Conv2d(4, 6, 3, (2, 3)))
    assert rewrite().leaves(site) == Layout(runs=((6, 6),), how="select")
    assert rewrite("reduce").leaves(site) is None
    assert rewrite().reduced().params == rewrite("reduce").params
    assert rewrite().params.channels == "carry"


def test_the_claim_says_what_learns() -> None:
    site = site_of(nn.Conv2d(4, 6, 3, 2))
    assert "next layers" in rewrite().claim(site).training
    assert "reduction" in rewrite("reduce").claim(site).training


def test_weights_are_passed_on_and_made_on_the_cpu() -> None:
    conv = nn.Conv2d(4, 6, 3, 2)
    before = torch.get_rng_state()
    with torch.device("meta"):
        new = rewrite("reduce").weights(site_of(conv), dict(conv.named_parameters()))
    assert new["weight"] is conv.weight
    assert new["reduction_weight"].device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("params", [{"channels": "drop"}, {"channels": True}, {"kernel": "odd"}])
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UnstrideConvParams(**params)
