"""Records: geometry, sites, and the way through JSON."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from spdify.records import (
    MAX_PLANS,
    BundleRecord,
    Call,
    Claim,
    DataRecord,
    Decision,
    Geometry,
    Inputs,
    InputSpec,
    Kernel,
    Measure,
    Plan,
    Preprocessing,
    Shape,
    Site,
    Source,
)


def window(
    kernel: int | Shape = 3,
    stride: int | Shape = 2,
    padding: int | Shape = 1,
    dilation: int | Shape = 1,
    **more: object,
) -> Geometry:
    numbers = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    axes = {name: (value,) if isinstance(value, int) else value for name, value in numbers.items()}
    return Geometry.model_validate({"in_channels": 4, "out_channels": 8, **axes, **more})


def site(geometry: Geometry, *spatial: Shape, operation: str = "") -> Site:
    calls = tuple(Call(input=(1, 4, *size), output=(1, 8, *size)) for size in spatial)
    return Site(path="a.b", operation=operation, operator="conv", type_name="Conv1d", geometry=geometry, calls=calls)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_size_is_that_of_torch(*, ceil_mode: bool) -> None:
    for k, s, p, d, n in product((1, 2, 3, 5), (1, 2, 3, 7), (0, 1, 2), (1, 2), range(9, 15)):
        if p > k // 2:
            continue
        pool = nn.MaxPool1d(k, s, p, d, ceil_mode=ceil_mode)
        found = window(k, s, p, d, ceil_mode=ceil_mode).output_size(n, 0)
        assert found == pool(torch.zeros(1, 1, n)).shape[-1], (k, s, p, d, n)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_size_with_same_padding_is_that_of_timm(*, ceil_mode: bool) -> None:
    for k, s, d, n in product((1, 2, 3, 5), (1, 2, 3, 7), (1, 2), range(1, 15)):
        pool = MaxPool2dSame((k, 1), (s, 1), dilation=(d, 1), ceil_mode=ceil_mode)
        geometry = window(k, s, 0, d, ceil_mode=ceil_mode, padding_mode="same")
        assert geometry.output_size(n, 0) == pool(torch.zeros(1, 1, n, 1)).shape[2] == -(-n // s), (k, s, d, n)


def test_positions_read_with_same_padding() -> None:
    same = {"padding_mode": "same"}
    assert window(3, 2, 0, **same).positions_read((8,)) == 1  # one position of padding, above
    assert window(1, 2, 0, **same).positions_read((8,)) == 0.5
    assert window(2, 3, 0, **same).positions_read((9,)) == 6 / 9
    assert window(2, 3, 0, **same).positions_read((10,)) == 7 / 10


def test_positions_read() -> None:
    assert window(1, 2, 0).positions_read((8,)) == 0.5
    assert window(3, 2, 1).positions_read((8,)) == 1
    assert window(2, 4, 0).positions_read((8,)) == 0.5
    assert window(3, 2, 0).positions_read((8,)) == 7 / 8
    assert window((1, 1), (2, 2), (0, 0), (1, 1)).positions_read((8, 4)) == 0.25


@pytest.mark.parametrize(
    ("geometry", "text"),
    [
        (window(), "3 s2 p1"),
        (window(1, 2, 0), "1 s2"),
        (window(3, 2, 2, 2, groups=2), "3 s2 p2 d2 g2"),
        (window(groups=4, padding_mode="reflect"), "3 s2 p1 dw reflect"),
        (window(padding=0, padding_mode="same"), "3 s2 same"),
        (window(ceil_mode=True, count_include_pad=False), "3 s2 p1 ceil no-pad-count"),
        (window(kernel=3, padding=0, count_include_pad=False), "3 s2"),
        (window(kernel=(1, 3), stride=(1, 2), padding=(0, 1), dilation=(1, 1)), "1x3 s1x2 p0x1"),
    ],
)
def test_short_form(geometry: Geometry, text: str) -> None:
    assert str(geometry) == text


def test_depthwise() -> None:
    assert window(groups=4).depthwise
    assert not window(groups=2).depthwise
    assert not window(in_channels=1).depthwise


def test_a_site_is_named_by_path_and_operation() -> None:
    assert site(window(), (8,)).name == "a.b"
    assert site(window(), (8,), operation="conv:0").name == "a.b#conv:0"


def test_a_site_with_several_calls_takes_the_smallest() -> None:
    twice = site(window(3, 2, 0), (9,), (8,))
    assert twice.resolution == 8
    assert twice.positions_read == 7 / 8


def plan() -> Plan:
    decision = Decision(
        site=site(window(), (8,)),
        action="applied",
        rule="r",
        rewrite="replace-strided-conv",
        params={"kernel": "odd", "flag": True, "count": 1, "share": 1.0},
        claim=Claim(value="exact", training="same"),
    )
    kept = decision.model_copy(update={"action": "kept", "claim": None})
    inputs = Inputs(args=(InputSpec(shape=(1, 4, 8)),), kwargs={"mask": InputSpec(shape=(1, 8), dtype="bool")})
    return Plan(rulebook="spd", fingerprint="0" * 64, inputs=inputs, decisions=(decision, kept))


def test_json_and_back() -> None:
    again = Plan.model_validate_json(plan().model_dump_json())
    assert again == plan()
    kinds = {name: type(value) for name, value in again.decisions[0].params.items()}
    assert kinds == {"kernel": str, "flag": bool, "count": int, "share": float}
    assert isinstance(again.decisions[0].site.geometry.kernel, tuple)


def test_applied_are_the_decisions_that_change_the_model() -> None:
    assert [d.action for d in plan().applied] == ["applied"]
    assert [d.action for d in plan().with_action("kept")] == ["kept"]


def test_records_are_frozen_and_strict() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        plan().rulebook = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        InputSpec.model_validate({"shape": [1], "size": 3})
    with pytest.raises(ValidationError):
        window(in_channels=0)


def test_sums() -> None:
    assert InputSpec(shape=(2, 3, 4)).elements == 24
    assert Measure(params=1, macs=21, activation_bytes=0, weight_bytes=4).flops == 42


@pytest.mark.parametrize(("kind", "registry"), [("timm", True), ("torchvision", True), ("code", False)])
def test_registry_sources_are_built_without_the_users_code(kind: str, *, registry: bool) -> None:
    source = Source.model_validate({"spec": "s", "kind": kind, "name": "n"})
    assert source.is_registry is registry


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("window", [(3, 2, 1, 1), (1, 3, 2, 1), (2, 4, 1, 1), (4, 3, 3, 2), (7, 3, 1, 1)])
@pytest.mark.parametrize("size", [9, 10, 61])
def test_positions_read_are_those_with_a_gradient(mode: str, window: tuple[int, int, int, int], size: int) -> None:
    kernel, stride, padding, dilation = window
    conv = torch.nn.Conv1d(1, 1, kernel, stride, padding, dilation, padding_mode=mode).double()
    conv.weight.data.fill_(1)
    x = torch.ones(1, 1, size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(conv(x).sum(), x)
    geometry = Geometry(
        in_channels=1, out_channels=1, kernel=(kernel,), stride=(stride,), padding=(padding,), dilation=(dilation,),
        padding_mode=mode,
    )  # fmt: skip
    assert geometry.positions_read((size,)) == pytest.approx((gradient != 0).double().mean().item())


def test_a_pool_over_a_long_signal_is_a_window() -> None:
    geometry = window(160_000, 160_000, 0)
    assert geometry.positions_read((480_000,)) == 1
    assert geometry.positions_read((480_001,)) == pytest.approx(480_000 / 480_001)


@pytest.mark.parametrize(("size", "start", "share"), [(5, 1, 0.4), (5, 0, 0.6), (6, 1, 0.5), (1001, 1, 500 / 1001)])
def test_a_slice_reads_from_its_start(size: int, start: int, share: float) -> None:
    geometry = Geometry(in_channels=1, out_channels=1, kernel=(1,), stride=(2,), padding=(0,), dilation=(1,))
    assert geometry.positions_read((size,), (start,)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("operation", "operator"),
    [("__class__", "conv"), ("a:b:c:0", "conv"), ("a b:0", "conv"), ("end:0\n", "stage_end"), ("to:0", "stage_end"),
     ("end:0\n  exec(x)", "stage_end"), ("::", "conv"), ("forward:conv:0", "stage_end"), ("", "stage_end")],
)  # fmt: skip
def test_an_operation_names_nothing_else(operation: str, operator: str) -> None:
    changed = site(
        Geometry(in_channels=1, out_channels=1, kernel=(1,), stride=(2,), padding=(0,), dilation=(1,)), (1, 1, 4)
    ).model_dump()
    changed |= {"operation": operation, "operator": operator}
    with pytest.raises(ValidationError):
        Site.model_validate(changed)


@pytest.mark.parametrize(
    "spec",
    [{"shape": ()}, {"shape": (1, 0)}, {"shape": (1, 3, 2**14, 2**14)}, {"shape": (1,) * 17},
     {"shape": (1, 3), "dtype": "float31"}, {"shape": (1, 3), "dtype": "load"}],
)  # fmt: skip
def test_inputs_that_would_take_all_memory_or_name_no_dtype(spec: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InputSpec.model_validate(spec)


@pytest.mark.parametrize("change", [{"input_size": (3, 2**14, 2**14)}, {"crop_pct": 1e-9}])
def test_images_that_would_take_all_memory(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"input_size": (3, 8, 8), "mean": (0,), "std": (1,)} | change)


@pytest.mark.parametrize("images", [{}, {"test": 5}, {"train": -1}, {"train": 10**400}])
def test_data_that_was_trained_on_has_images(images: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        DataRecord.model_validate({"name": "x", "classes": (), "images": images, "digest": ""})


def test_a_bundle_has_so_many_plans_at_most() -> None:
    record: dict[str, Any] = {
        "source": {"spec": "x", "kind": "object", "name": "x"}, "seed": 0, "versions": {}, "proof": "", "checks": (),
    }  # fmt: skip
    plan = {"rulebook": "spd", "fingerprint": "0", "inputs": {}, "decisions": ()}
    BundleRecord.model_validate(record | {"plans": [plan] * MAX_PLANS})
    with pytest.raises(ValidationError, match="plans"):
        BundleRecord.model_validate(record | {"plans": [plan] * (MAX_PLANS + 1)})


@pytest.mark.parametrize("count", [0, 2])
def test_a_window_without_weights_lies_in_one_place(count: int) -> None:
    taps = {"tensor": "", "kernel": (1,), "scale": (1,), "origins": (0,)}
    Kernel.model_validate({"site": "a", "before": taps, "after": [taps]})
    with pytest.raises(ValidationError):
        Kernel.model_validate({"site": "a", "before": taps, "after": [taps] * count})
