"""A strided stem becomes SPD and a small convolution with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import timm.layers
import torch
from pydantic import ValidationError
from torch import nn

from spdify.blocks import SPDConv
from spdify.rewrites import ReplaceStem
from spdify.rewrites.stem import StemParams
from tests.rewrites.sites import check_refused, site_of, surveyed


def rewrite(**params: Any) -> ReplaceStem:  # noqa: ANN401 - parameters of the rewrite
    return ReplaceStem(StemParams(**params))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.MaxPool2d(2), {}, "is for conv, this is a max_pool"),
        (nn.Conv2d(3, 8, 3, 2), {"operator": "slice"}, "this is a slice"),
        (nn.Conv2d(3, 8, 3, 2, 1), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.Conv2d(3, 8, 3, 2, 1), {"operation": "forward:conv2d:0"}, "no module to change"),
        (nn.Conv2d(3, 8, 3, 2, 1), {"constants": {"experts": 4}}, "a stem of plain weights"),
        (nn.Conv2d(3, 8, 3, 2, 1), {"constants": {"eps": 1e-6}}, "a stem of plain weights cannot stand for a Conv2d"),
        (nn.Conv2d(3, 8, 3, 2, 1), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
        (nn.Conv2d(3, 8, 3, 2), {}, "3x3 s2 does not give one output per block of (2, 2) positions"),
        (nn.Conv2d(3, 8, 3, 2, 2), {}, "does not give one output per block"),
        (nn.Conv2d(3, 8, 7, 4, 1), {}, "does not give one output per block"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str, kernel: int) -> None:
    check_refused(rewrite(kernel=kernel), site_of(module, channels=3, **fields), reason)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.Conv2d(3, 8, 4, 4),
        nn.Conv2d(3, 8, 7, 4, 2),
        nn.Conv2d(4, 8, 6, 2, 2, groups=2),
        nn.Conv2d(3, 8, (1, 7), (1, 2), (0, 3)),
        nn.Conv2d(3, 8, 3, 2, 1, padding_mode="reflect"),
        nn.Conv1d(3, 8, 5, 2, 2),
        nn.Conv3d(3, 8, (3, 7, 7), (1, 2, 2), (1, 3, 3)),
    ],
    ids=str,
)
def test_the_output_has_the_sizes_of_the_stem(module: Any, kernel: int) -> None:  # noqa: ANN401 - any of three classes
    site, change = site_of(module), rewrite(kernel=kernel)
    assert change.check(site) is None
    assert change.claim(site).value == "reinitialised"
    block = change.build(site)
    assert isinstance(block, SPDConv)
    assert (block.out_channels, block.groups) == (module.out_channels, module.groups)
    assert block.kernel_size == (kernel,) * site.geometry.dims
    new = change.weights(site, {})
    block.load_state_dict(new)
    assert ("bias" in new) == (module.bias is not None)
    for size in ((16, 18, 20), (17, 19, 18), (18, 21, 19), (19, 16, 17)):
        x = torch.randn(1, module.in_channels, *size[: site.geometry.dims])
        assert block(x).shape == module(x).shape


def test_same_padding() -> None:
    conv = timm.layers.Conv2dSame(3, 8, 3, 2)
    block = rewrite().build(surveyed(conv, (3, 17, 16)))
    for size in ((16, 18), (17, 19)):
        x = torch.randn(1, 3, *size)
        assert block(x).shape == conv(x).shape


def test_a_block_reads_its_own_positions() -> None:
    # The released networks' Focus: space-to-depth, 1×1.
    site = site_of(nn.Conv2d(3, 8, 7, 2, 3, bias=False))
    block = rewrite().build(site)
    x = torch.randn(1, 3, 8, 8)
    expected = nn.functional.conv2d(nn.functional.pixel_unshuffle(x, 2), block.weight)
    torch.testing.assert_close(block(x), expected)


def test_weights_are_the_same_each_time_and_draw_nothing_of_the_callers() -> None:
    site = site_of(nn.Conv2d(3, 8, 7, 2, 3))
    first = rewrite().weights(site, {})
    before = torch.get_rng_state()
    with torch.device("meta"):
        second = rewrite().weights(site, {})
    assert all(torch.equal(first[name], second[name]) for name in ("weight", "bias"))
    assert first["weight"].std() > 0.05
    assert torch.equal(torch.get_rng_state(), before)
    assert rewrite().reads(site) == {}


@pytest.mark.parametrize(
    "params",
    [{"kernel": 2}, {"kernel": 0}, {"kernel": -1}, {"kernel": True}, {"kernel": "odd"}, {"activation": "gelu"}],
)
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StemParams(**params)


def test_the_params_that_it_takes() -> None:
    assert StemParams().model_dump() == {"kernel": 1, "activation": "keep"}
    assert StemParams(kernel=3, activation="silu").kernel == 3
