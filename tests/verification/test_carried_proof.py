"""The proof of what follows a change of channels passes what is right, and fails what is wrong."""

from __future__ import annotations

import pytest
from torch import nn

from spdify.records import Adjustment, Layout, TensorChange
from spdify.verification.carried_proof import carried_error
from spdify.verification.site_proof import SITE_TOLERANCE

FOUR = Layout(runs=((6, 4),))
MEAN = FOUR.model_copy(update={"how": "mean"})


def change(name: str, axis: int, kind: str, layout: Layout = FOUR) -> TensorChange:
    return TensorChange(name=name, axis=axis, change=kind, layout=layout)


def reader(kind: str, layout: Layout = FOUR, taken: Layout = FOUR) -> Adjustment:
    return Adjustment(
        path="x", type_name="Conv2d", role="consumer", tensors=(change("weight", 1, kind, layout),),
        numbers={"in_channels": 24}, takes=taken,
    )  # fmt: skip


def norm(*names: str) -> Adjustment:
    changes = tuple(change(name, 0, "repeat") for name in names)
    return Adjustment(
        path="x", type_name="BatchNorm2d", role="carrier", tensors=changes, numbers={"num_features": 24}, takes=FOUR,
        gives=FOUR,
    )  # fmt: skip


@pytest.mark.parametrize("layout", [FOUR, MEAN], ids=["select", "mean"])
def test_a_reader_that_reads_the_old_channels_passes(layout: Layout) -> None:
    assert carried_error(nn.Conv2d(6, 5, 3), reader("read", layout, layout), seed=0) < SITE_TOLERANCE


@pytest.mark.parametrize(
    "wrong", [reader("repeat"), reader("read", MEAN), reader("read", FOUR, MEAN)], ids=["repeat", "mean", "select"]
)
def test_a_reader_of_other_channels_fails(wrong: Adjustment) -> None:
    assert carried_error(nn.Conv2d(6, 5, 3), wrong, seed=0) > 1e-3


def test_a_norm_passes() -> None:
    adjustment = norm("weight", "bias", "running_mean", "running_var")
    assert carried_error(nn.BatchNorm2d(6), adjustment, seed=0) < SITE_TOLERANCE


def test_a_norm_of_the_channels_in_another_order_fails() -> None:
    shuffled = Layout(runs=((1, 4), (2, 1), (3, 6)))  # 24 as well, but not four copies of each
    wrong = norm("bias", "running_mean", "running_var")
    wrong = wrong.model_copy(update={"tensors": (change("weight", 0, "repeat", shuffled), *wrong.tensors)})
    assert carried_error(nn.BatchNorm2d(6), wrong, seed=0) > 1e-3
