"""The group norm of phases."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spdify.blocks import SPDGroupNorm


@pytest.mark.parametrize("spatial", [(5,), (5, 7), (2, 3, 4), ()])
@pytest.mark.parametrize("affine", [True, False])
def test_each_phase_is_normed_by_itself(spatial: tuple[int, ...], affine: bool) -> None:
    plain = nn.GroupNorm(3, 6, affine=affine).double()
    block = SPDGroupNorm(3, 24, 4, affine=affine).double()
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
        block.weight.data = plain.weight.repeat_interleave(4)
        block.bias.data = plain.bias.repeat_interleave(4)
    x = torch.randn(2, 24, *spatial, dtype=torch.float64)
    for phase in range(4):
        assert_close(block(x)[:, phase::4], plain(x[:, phase::4]))


def test_a_plain_group_norm_would_mix_phases() -> None:
    x = torch.randn(2, 24, 5, 5, dtype=torch.float64)
    assert not torch.allclose(nn.GroupNorm(12, 24).double()(x), SPDGroupNorm(3, 24, 4).double()(x))


def test_it_is_made_from_a_group_norm() -> None:
    norm = nn.GroupNorm(3, 24, eps=1e-3).eval()
    block = SPDGroupNorm.from_norm(norm, 4)
    assert block.weight is norm.weight
    assert (block.eps, block.training) == (1e-3, False)
    assert "copies=4" in repr(block)


def test_channels_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot divide 20 channels into 4 phases of 3 groups"):
        SPDGroupNorm(3, 20, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_it_gives_the_dtype_of_the_plain_one(dtype: torch.dtype) -> None:
    x = torch.randn(2, 24, 5, 5, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert SPDGroupNorm(3, 24, 4)(x).dtype == nn.GroupNorm(3, 24)(x).dtype
