"""Blocks that blur before they drop positions, against the definition written out."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from timm.layers import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import BlurredActivation, BlurredAvgPool, BlurredConv, BlurredMaxPool, UnstridedConv
from spdify.blocks.blurring import binomial_filter

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = {1: [1.0], 2: [0.5, 0.5], 3: [0.25, 0.5, 0.25], 4: [0.125, 0.375, 0.375, 0.125], 5: [1 / 16, 4 / 16, 6 / 16]}
ROWS[5] += ROWS[5][1::-1]
SIZES = list(product(range(7, 12), repeat=2))
PLACES: dict[str, Callable[[int, int], int | None]] = {
    "replicate": lambda x, n: min(max(x, 0), n - 1),
    "reflect": lambda x, n: abs(x) if x < n else 2 * (n - 1) - x,
    "zeros": lambda x, n: x if 0 <= x < n else None,
}


def blurred(x: torch.Tensor, axis: int, stride: int, taps: int, mode: str, shift: int = 0) -> torch.Tensor:
    """Blur along one axis, output i centred at s·i + shift: a sum of rows, by the definition."""
    n = x.shape[axis]
    outputs = []
    for start in range(shift, n, stride):
        total = torch.zeros_like(x.select(axis, 0))
        for k, weight in enumerate(ROWS[taps]):
            place = PLACES[mode](start + k - (taps - 1) // 2, n)
            total += 0 if place is None else weight * x.select(axis, place)
        outputs.append(total)
    return torch.stack(outputs, axis)


def both(x: torch.Tensor, stride: int = 2, taps: int = 3, mode: str = "replicate") -> torch.Tensor:
    return blurred(blurred(x, -1, stride, taps, mode), -2, stride, taps, mode)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", PLACES)
@pytest.mark.parametrize(("stride", "taps"), [(2, 3), (2, 5), (3, 3)])
def test_each_block_is_its_definition(x: torch.Tensor, mode: str, stride: int, taps: int) -> None:
    blur: dict[str, Any] = {"taps": taps, "blur_padding": mode}
    expect = {"stride": stride, "taps": taps, "mode": mode}
    conv = BlurredConv(4, 6, 3, (stride, stride), 1, groups=2, **blur).double()
    dense = F.conv2d(x, conv.weight, conv.bias, padding=1, groups=2)
    torch.testing.assert_close(conv(x), both(dense, **expect))
    pool = BlurredMaxPool(3, stride, 1, **blur)
    torch.testing.assert_close(pool(x), both(F.max_pool2d(x, 3, 1, 1), **expect))
    act = BlurredActivation(nn.SiLU(), (stride, stride), **blur)
    torch.testing.assert_close(act(x), both(F.silu(x), **expect))
    mean = BlurredAvgPool(3, stride, 1, **blur)
    torch.testing.assert_close(mean(x), both(x, **expect))


def test_a_convolution_of_one_tap_comes_after_its_blur(x: torch.Tensor) -> None:
    conv = BlurredConv(4, 6, 1).double()
    torch.testing.assert_close(conv(x), both(F.conv2d(x, conv.weight, conv.bias)))


def test_a_mean_of_two_becomes_a_filter_of_four(x: torch.Tensor) -> None:
    # Windows 2i, 2i + 1 of the pool: the filter reads one position more on either side. Of 9 positions it makes 4.
    torch.testing.assert_close(BlurredAvgPool(2, 2)(x), both(x, taps=4)[:, :, :4])


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 2, 1, 1), (7, 2, 3, 1), (2, 2, 0, 1), (4, 3, 1, 1), (3, 2, 2, 2), (1, 2, 0, 1)],
)
def test_sizes_of_convolutions(mode: str, kernel: int, stride: int, padding: int, dilation: int) -> None:
    window = (4, 4, kernel, (stride, stride), padding, dilation)
    plain = nn.Conv2d(*window, padding_mode=mode)  # type: ignore[arg-type]
    block = BlurredConv(*window, padding_mode=mode)
    part, act = UnstridedConv(*window, padding_mode=mode), BlurredActivation(nn.ReLU(), (stride, stride))
    part.load_state_dict(plain.state_dict())
    for size in SIZES:
        x = torch.randn(1, 4, *size)
        assert block(x).shape == act(part(x)).shape == plain(x).shape
        torch.testing.assert_close(part(x)[:, :, ::stride, ::stride], plain(x))


def test_same_padding() -> None:
    for kernel, stride in product((1, 2, 3, 5), (2, 3)):
        conv = Conv2dSame(4, 4, kernel, stride)
        part = UnstridedConv(4, 4, kernel, (stride, stride), padding_mode="same")
        part.load_state_dict(conv.state_dict())
        pools = [MaxPool2dSame(kernel, stride), AvgPool2dSame(kernel, stride)]
        blocks = [BlurredMaxPool(kernel, stride, same=True), BlurredAvgPool(kernel, stride, same=True)]
        for size in SIZES:
            x = torch.randn(1, 4, *size)
            torch.testing.assert_close(part(x)[:, :, ::stride, ::stride], conv(x))
            for pool, block in zip(pools, blocks, strict=True):
                assert block(x).shape == pool(x).shape
                assert block(x).isfinite().all()


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 2, 0), (2, 3, 1), (5, 2, 0), (1, 2, 0)]
)
def test_sizes_of_pools(ceil_mode: bool, kernel: int, stride: int, padding: int) -> None:
    window = (kernel, stride, min(padding, kernel // 2))
    pairs = [
        (nn.MaxPool2d(*window, ceil_mode=ceil_mode), BlurredMaxPool(*window, ceil_mode=ceil_mode)),
        (nn.AvgPool2d(*window, ceil_mode=ceil_mode), BlurredAvgPool(*window, ceil_mode=ceil_mode)),
    ]
    for size in SIZES:
        x = torch.randn(1, 4, *size)
        for pool, block in pairs:
            assert block(x).shape == pool(x).shape
            assert block(x).isfinite().all(), "no window lies in the padding alone"
    assert torch.equal(BlurredMaxPool(*window, ceil_mode=ceil_mode, taps=1)(x), pairs[0][0](x)), "without a filter"


@pytest.mark.parametrize("dims", [1, 3])
def test_other_numbers_of_axes(dims: int) -> None:
    stride = (1, 2, 2)[-dims:]
    x = torch.randn(2, 4, *(5, 9, 8)[-dims:])
    strided: Any = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    pooled: Any = {1: nn.MaxPool1d, 3: nn.MaxPool3d}[dims]
    assert BlurredConv(4, 6, 3, stride, 1)(x).shape == strided(4, 6, 3, stride, 1)(x).shape
    assert BlurredMaxPool(3, stride, 1, dims=dims)(x).shape == pooled(3, stride, 1)(x).shape
    kept = BlurredActivation(nn.Identity(), stride)(x.new_ones(x.shape))
    assert torch.equal(kept, torch.ones_like(kept)), "the filter's sum is one, at the edges too"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_filter_is_exact_in_half_precision(dtype: torch.dtype) -> None:
    found = binomial_filter((5, 5), torch.empty(0, dtype=dtype))
    row = torch.tensor(ROWS[5], dtype=torch.float64)
    assert torch.equal(found.double(), row[:, None] * row)


@pytest.mark.parametrize(
    "block",
    [
        BlurredConv(4, 6, 3, 2, 1),
        BlurredMaxPool(3, 2, 1, ceil_mode=True),
        BlurredAvgPool(2, 2),
        BlurredActivation(nn.ReLU()),
    ],
    ids=lambda block: type(block).__name__,
)
def test_sizes_stay_open_in_an_export(block: nn.Module) -> None:
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    network = nn.Sequential(block, nn.Identity())
    program = torch.export.export(network, (torch.randn(2, 4, 16, 20),), dynamic_shapes=(sizes,))
    for size in ((17, 20), (12, 23)):
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(program.module()(x), network(x))


def test_weights_learn_through_the_blur(x: torch.Tensor) -> None:
    block = BlurredConv(4, 6, 3, 2, 1, taps=5).double()
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().min() > 0 for p in block.parameters())
        optimizer.step()


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="an odd number of taps, got 4"):
        BlurredMaxPool(3, 2, taps=4)
    with pytest.raises(ValueError, match="cannot split"):
        BlurredConv(4, 6, groups=4)
