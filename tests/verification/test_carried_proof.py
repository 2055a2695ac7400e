"""The proof of what follows a change of channels passes what is right, and fails what is wrong."""

from __future__ import annotations

import pytest
from torch import nn

from spdify.graph.carriers import step_through
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


def asked(module: nn.Module, taken: Layout) -> Adjustment:
    """Give what a walk asks of a module."""
    step = step_through(module, taken)
    return Adjustment(
        path="x", type_name=type(module).__name__, role=step.role, tensors=step.tensors, numbers=step.numbers,
        block=step.block, takes=taken, gives=step.out,
    )  # fmt: skip


MIXED = Layout(runs=((2, 4), (4, 1)))


@pytest.mark.parametrize("layout", [FOUR, MIXED], ids=["all", "some"])
@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(6),
        nn.BatchNorm2d(6, momentum=None),
        nn.BatchNorm3d(6, track_running_stats=False),
        nn.InstanceNorm1d(6, affine=True, track_running_stats=True),
        nn.InstanceNorm2d(6),
        nn.InstanceNorm3d(6, affine=True),
        nn.PReLU(6),
        nn.Conv1d(6, 4, 3, padding=4, padding_mode="circular"),
        nn.Conv2d(6, 6, 7, padding=6, padding_mode="reflect", groups=6),
        nn.Conv3d(6, 4, (1, 2, 3)),
        nn.Linear(6, 4),
    ],
    ids=lambda module: type(module).__name__ if isinstance(module, nn.Module) else None,
)
def test_what_a_walk_asks_passes_for_one_two_and_three_axes(module: nn.Module, layout: Layout) -> None:
    assert carried_error(module, asked(module, layout), seed=0) < SITE_TOLERANCE


def test_a_flattened_map_read_position_by_position_fails() -> None:
    linear, taken = nn.Linear(12, 4), Layout(runs=((6, 4),), inner=2)
    assert carried_error(linear, asked(linear, taken), seed=0) < SITE_TOLERANCE
    wrong = change("weight", 1, "read", Layout(runs=((12, 4),)))
    assert carried_error(linear, asked(linear, taken).model_copy(update={"tensors": (wrong,)}), seed=0) > 1e-3


def test_a_group_norm_that_mixes_phases_fails() -> None:
    norm_of_groups = nn.GroupNorm(3, 6)
    adjustment = asked(norm_of_groups, FOUR)
    assert carried_error(norm_of_groups, adjustment, seed=0) < SITE_TOLERANCE
    assert carried_error(norm_of_groups, adjustment.model_copy(update={"block": ""}), seed=0) > 1e-3


def test_channels_that_are_said_to_leave_in_another_number_fail() -> None:
    adjustment = norm("weight", "bias", "running_mean", "running_var").model_copy(
        update={"gives": Layout(runs=((6, 2),))}
    )
    assert carried_error(nn.BatchNorm2d(6), adjustment, seed=0) > 1e-3
