"""What counts as downsampling."""

from __future__ import annotations

import pytest

from spdify.graph.operations import SITE, Operation, judge
from spdify.records import Call, Geometry


def operation(operator: str, kernel: int, stride: int, size: int, out: int, *, lossless: bool = False) -> Operation:
    window = Geometry(
        in_channels=4, out_channels=4, kernel=(kernel,) * 2, stride=(stride,) * 2, padding=(0, 0), dilation=(1, 1)
    )
    call = Call(input=(1, 4, size, size), output=(1, 4, out, out))
    return Operation("here", operator, "Any", called=True, geometry=window, call=call, lossless=lossless)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("operator", "kernel", "stride", "size", "out"),
    [
        ("conv", 3, 2, 16, 7),
        ("conv", 1, 2, 16, 8),
        ("conv", 16, 16, 16, 1),  # a patch embedding of one patch still has weights to learn
        ("conv", 3, 2, 1, 1),
        ("max_pool", 2, 2, 16, 8),
        ("avg_pool", 1, 2, 16, 8),
        ("avg_pool", 3, 3, 5, 1),  # one window that leaves rows out
        ("slice", 1, 2, 16, 8),
    ],
)
def test_a_stride_makes_a_site(operator: str, kernel: int, stride: int, size: int, out: int) -> None:
    assert judge(operation(operator, kernel, stride, size, out)) == SITE


@pytest.mark.parametrize(
    ("operator", "kernel", "stride", "size", "out", "word"),
    [
        ("conv", 3, 1, 16, 14, "stride 1"),
        ("max_pool", 5, 1, 16, 16, "stride 1"),
        ("avg_pool", 7, 1, 7, 1, "stride 1"),
        ("avg_pool", 7, 7, 7, 1, "global"),
        ("max_pool", 8, 8, 7, 1, "global"),
        ("adaptive_pool", 1, 1, 16, 1, "global"),
        ("adaptive_pool", 1, 1, 16, 7, "adaptive"),
    ],
)
def test_what_does_not_step_over_positions_is_none(
    operator: str, kernel: int, stride: int, size: int, out: int, word: str
) -> None:
    assert judge(operation(operator, kernel, stride, size, out)).startswith(word)


def test_a_slice_that_loses_nothing_is_none() -> None:
    assert judge(operation("slice", 1, 2, 16, 8, lossless=True)).startswith("lossless")


def test_keys_leave_out_axes_of_one_position() -> None:
    flat = Geometry(in_channels=4, out_channels=4, kernel=(3,), stride=(2,), padding=(1,), dilation=(1,))
    lifted = flat.model_copy(update={"kernel": (1, 3), "stride": (1, 2), "padding": (0, 1), "dilation": (1, 1)})
    one = Operation("a", "max_pool", "x", called=True, geometry=flat, call=Call(input=(1, 4, 9), output=(1, 4, 5)))
    call = Call(input=(1, 4, 1, 9), output=(1, 4, 1, 5))
    other = Operation("a", "max_pool", "y", called=False, geometry=lifted, call=call)
    assert one.key == other.key
    assert "max_pool 3 s2 p1 in a" in one.description
