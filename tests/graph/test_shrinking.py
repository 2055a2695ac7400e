"""Ways of shrinking that are listed and stay, and look-alikes that are not listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import SPDConv
from spdify.graph import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Inputs


class Doing(nn.Module):
    """Does what a function says."""

    def __init__(self, does: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.does = does

    def forward(self, x: Tensor) -> Tensor:
        return self.does(x)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).contiguous()


def blocks(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2)


LISTED = {
    "unfold": lambda x: F.unfold(x, 4, stride=4),
    "resize": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "rearrangement": lambda x: blocks(x).permute(0, 3, 5, 1, 2, 4).reshape(x.shape[0], -1, 8, 8),
    "max": lambda x: (t := tokens(x)).view(t.shape[0], 4, -1, t.shape[-1]).amax(1),
}

NOT_LISTED = {
    "unfold at stride 1": lambda x: F.unfold(x, 3, padding=1),
    "larger": lambda x: F.interpolate(x, scale_factor=2.0),
    "windows for attention": lambda x: blocks(x).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, x.shape[1]),
    "halves of the channels": lambda x: x.view(x.shape[0], 2, 3, 16, 16).amax(1),
    "queries, keys, values": lambda x: tokens(x).view(x.shape[0], 256, 2, 3).permute(2, 0, 1, 3).sum(0),
    "global maximum": lambda x: x.amax((2, 3)),
    "maximum of tokens": lambda x: tokens(x).amax(1),
    "channel shuffle": lambda x: x.view(x.shape[0], 2, 3, 16, 16).transpose(1, 2).flatten(1, 2),
    "depth to space": lambda x: F.pixel_shuffle(torch.cat([x, x], 1), 2),
}


@pytest.mark.parametrize("operator", LISTED)
def test_it_is_listed_with_a_reason(operator: str, inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(nn.Sequential(Doing(LISTED[operator])), inputs_of(6, 16, 16))
    (found,) = seen.left_alone
    assert (found.path, found.operator) == ("0", operator)
    assert found.reason
    assert not seen.sites


@pytest.mark.parametrize("name", NOT_LISTED)
def test_look_alikes_are_not_listed(name: str, inputs_of: Callable[..., Inputs]) -> None:
    assert not survey(nn.Sequential(Doing(NOT_LISTED[name])), inputs_of(6, 16, 16)).left_alone


def test_blocks_of_spdify_are_not_listed(inputs_of: Callable[..., Inputs]) -> None:
    assert not survey(nn.Sequential(SPDConv(3, 4, 3, 2)), inputs_of(3, 16, 16)).left_alone


@pytest.mark.parametrize(
    ("name", "size", "operators"),
    [
        ("swin_tiny_patch4_window7_224", 224, {"rearrangement"}),
        ("hiera_tiny_224", 224, {"max"}),
        ("tnt_s_legacy_patch16_224", 224, {"unfold"}),
        ("crossvit_tiny_240", 240, {"resize"}),
        ("resnet18", 64, set()),
    ],
)
def test_real_networks(name: str, size: int, operators: set[str], inputs_of: Callable[..., Inputs]) -> None:
    model = timm.create_model(name)
    kinds = {"rearrangement", "max", "unfold", "resize", "pixel_unshuffle"}
    seen = survey(model, inputs_of(3, size, size))
    assert {item.operator for item in seen.left_alone} & kinds == operators
