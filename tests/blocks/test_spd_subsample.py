"""Subsampling slices as space-to-depth and a depthwise convolution."""

from __future__ import annotations

import pytest
import torch

from spdify.blocks import SPDSubsample


@pytest.mark.parametrize("form", ["space_to_depth", "strided"])
@pytest.mark.parametrize(("scale", "starts"), [((2, 2), (0, 0)), ((2, 2), (1, 0)), ((3, 2), (2, 1)), ((1, 4), (0, 3))])
@pytest.mark.parametrize("size", [(9, 11), (12, 12), (7, 10)])
def test_it_takes_the_slice(scale: tuple[int, int], starts: tuple[int, int], size: tuple[int, int], form: str) -> None:
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    rows, columns = (slice(start, None, step) for start, step in zip(starts, scale, strict=True))
    first = SPDSubsample(5, scale, starts, (2, 3), form=form).double()  # type: ignore[arg-type]
    assert torch.equal(first(x), x[:, :, rows, columns])
    last = SPDSubsample(5, scale, starts, (1, 2), form=form).double()  # type: ignore[arg-type]
    y = x.permute(0, 2, 3, 1)
    assert torch.equal(last(y), y[:, rows, columns])


def test_three_axes() -> None:
    x = torch.randn(2, 3, 5, 6, 7)
    block = SPDSubsample(3, (2, 2, 3), (0, 1, 2), (2, 3, 4))
    torch.testing.assert_close(block(x), x[:, :, ::2, 1::2, 2::3])


def test_the_other_phases_start_to_learn() -> None:
    block = SPDSubsample(2, (2, 2), (0, 0), (2, 3))
    block(torch.randn(1, 2, 6, 6)).square().sum().backward()
    assert block.weight.grad is not None
    assert (block.weight.grad != 0).all()


def test_a_start_beyond_the_first_block_is_no_phase() -> None:
    with pytest.raises(ValueError, match=r"starts below \(2, 2\), got \(2, 0\)"):
        SPDSubsample(2, (2, 2), (2, 0), (2, 3))
