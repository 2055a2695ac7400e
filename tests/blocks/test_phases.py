"""The algebra of taps and phases, against brute force over one axis."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from timm.layers.padding import pad_same_arg

from spdify.blocks.phases import check_pool_padding, per_axis, same_padding, scatter_taps, split_axis, whole_blocks

WINDOWS = [
    (k, s, p, d)
    for k, s, p, d in product((1, 2, 3, 4, 5, 7), (1, 2, 3, 4), (0, 1, 2, 3), (1, 2, 3))
    if p <= d * (k - 1) + 1
]


def expected_size(n: int, window: tuple[int, int, int, int], *, ceil_mode: bool) -> int:
    """Give the number of outputs as the documentation of torch.nn does."""
    k, s, p, d = window
    room = n + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return room // s + 1
    out = -(-room // s) + 1
    return out - 1 if (out - 1) * s >= n + p else out


@pytest.mark.parametrize("odd", [False, True])
def test_each_tap_reads_the_position_it_read(*, odd: bool) -> None:
    for window in WINDOWS:
        k, s, p, d = window
        axis = split_axis(k, s, p, d, odd=odd)
        low = axis.padding[0]
        for i, u in product(range(4), range(k)):
            tap, phase = axis.taps[u]
            assert 0 <= tap < axis.kernel, window
            assert 0 <= phase < s, window
            assert (i + tap - low // s) * s + phase == s * i + d * u - p, window


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_the_padding_gives_the_output_size(*, ceil_mode: bool, odd: bool) -> None:
    for window in WINDOWS:
        k, s, p, d = window
        if ceil_mode and p > k // 2:
            continue  # a pool, which torch.nn refuses
        axis = split_axis(k, s, p, d, ceil_mode=ceil_mode, odd=odd)
        for n in range(d * (k - 1) + 1, d * (k - 1) + 12):
            found = (n + sum(axis.padding) - axis.kernel * s) // s + 1
            assert found == expected_size(n, window, ceil_mode=ceil_mode), (window, n)
            assert found == (n + axis.excess) // s + 1, (window, n)


@pytest.mark.parametrize(
    ("window", "kernel", "low"),
    [
        ((3, 2, 1), 2, 1),
        ((1, 2, 0), 1, 0),
        ((5, 2, 2), 3, 1),
        ((7, 2, 3), 4, 2),
        ((2, 2, 0), 1, 0),
        ((4, 4, 0), 1, 0),
        ((7, 4, 3), 2, 1),
        ((3, 4, 1), 2, 1),
    ],
)
def test_the_minimal_window_is_minimal(window: tuple[int, int, int], kernel: int, low: int) -> None:
    axis = split_axis(*window, 1)
    assert (axis.kernel, axis.padding[0] // window[1]) == (kernel, low)
    assert {tap for tap, _ in axis.taps} >= {0, kernel - 1}


@pytest.mark.parametrize(("window", "kernel"), [((3, 2, 1), 3), ((2, 2, 0), 3), ((7, 2, 3), 5), ((11, 2, 5), 7)])
def test_the_odd_window_is_centred(window: tuple[int, int, int], kernel: int) -> None:
    axis = split_axis(*window, 1, odd=True)
    assert axis.kernel == kernel
    assert axis.padding[0] == kernel // 2 * window[1]


@pytest.mark.parametrize("window", [(1, 1, 0), (2, 1, 1), (3, 1, 1)])
def test_an_axis_without_stride_keeps_its_window(window: tuple[int, int, int]) -> None:
    assert split_axis(*window, 1, odd=True) == split_axis(*window, 1)
    assert split_axis(*window, 1).kernel == window[0]


def test_taps_are_moved_and_nothing_else() -> None:
    weight = torch.arange(1.0, 1 + 2 * 3 * 3 * 5).reshape(2, 3, 3, 5)
    axes = [split_axis(3, 2, 1, 1), split_axis(5, 3, 2, 1)]
    new = scatter_taps(weight, axes)
    assert new.shape == (2, 3 * 2 * 3, axes[0].kernel, axes[1].kernel)
    assert torch.equal(new[new != 0].sort().values, weight.flatten())
    (q, r), (q2, r2) = axes[0].taps[2], axes[1].taps[4]
    assert new[1, 2 * 6 + r * 3 + r2, q, q2] == weight[1, 2, 2, 4]


def test_scattering_is_linear_and_differentiable() -> None:
    weight = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    axes = [split_axis(3, 2, 1, 1)]
    assert torch.autograd.gradcheck(lambda w: scatter_taps(w, axes), (weight,))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_scattering_keeps_dtype_and_device(device: str) -> None:
    weight = torch.zeros(2, 3, 3, 3, dtype=torch.float16, device=device)
    new = scatter_taps(weight, [split_axis(3, 2, 1, 1)] * 2)
    assert (new.shape, new.dtype, new.device.type) == ((2, 12, 2, 2), torch.float16, device)


def test_one_number_stands_for_every_axis() -> None:
    assert per_axis(2, 3) == (2, 2, 2)
    assert per_axis([1, 2], 2) == (1, 2)
    with pytest.raises(ValueError, match="one number or 3"):
        per_axis((1, 2), 3)


@pytest.mark.parametrize(("kernel", "padding"), [((3,), (2,)), ((2, 2), (1, 2)), ((3,), (-1,))])
def test_pool_padding_above_half_the_kernel_is_a_fault(kernel: tuple[int, ...], padding: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="half the kernel"):
        check_pool_padding(kernel, padding)


def test_same_padding_is_that_of_timm() -> None:
    for k, s, d in product((1, 2, 3, 4, 7), (1, 2, 3, 4), (1, 2, 3)):
        for n in range(1, 14):
            ((low, high),) = same_padding([n], [d * (k - 1) + 1], [s])
            left, right, *_ = pad_same_arg([n, n], [k, k], [s, s], [d, d])
            assert (low, high) == (left, right)
            assert (n + low + high - d * (k - 1) - 1) // s + 1 == -(-n // s)


@pytest.mark.parametrize(
    "window", [(3, 2, 1, 1), (1, 2, 0, 1), (1, 3, 0, 1), (2, 2, 0, 1), (3, 3, 4, 3), (2, 5, 1, 2), (5, 1, 2, 1)]
)
def test_the_new_weight_is_contiguous(window: tuple[int, int, int, int]) -> None:
    new = scatter_taps(torch.randn(2, 3, window[0], window[0]), [split_axis(*window)] * 2)
    assert new.is_contiguous(), "safetensors refuses others"
    assert new.stride() == torch.empty(new.shape).stride(), "not even at axes of one position: a mask would move"


def test_sizes_become_multiples_of_the_scale() -> None:
    x = torch.arange(1.0, 6).expand(2, 3, 4, 5)
    assert torch.equal(whole_blocks(x, (2, 3), "crop"), x[..., :3])
    for edge, value in (("zeros", 0), ("replicate", 5)):
        filled = whole_blocks(x, (2, 3), edge)  # type: ignore[arg-type]
        assert torch.equal(filled, torch.cat([x, torch.full((2, 3, 4, 1), float(value))], dim=-1))
    assert whole_blocks(x, (2, 5), "zeros") is x
