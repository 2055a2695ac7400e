"""What the answer and the proof section say is no more than what was proved."""

from __future__ import annotations

from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import spdify
from spdify.records import BundleRecord
from spdify.reporting import report_page
from spdify.reporting.markdown import headline

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip


def convert(**options: Any) -> spdify.Conversion:  # noqa: ANN401 - those of `spdify.convert`
    return spdify.convert(network(), example_input=torch.randn(1, 3, 32, 32), **options)


def words(page: str) -> str:
    return unescape(page)


def test_an_exact_conversion_is_the_same_function_and_every_site_proved() -> None:
    report = convert().report
    assert "replaced (same function" in headline(report)
    page = words(report_page(report))
    assert "Every site was proved on its own, in float64." in page
    assert "in eval and in train mode" in page


def test_weights_that_are_drawn_are_not_said_to_be_proved() -> None:
    report = convert(init="random").report
    page = words(report_page(report))
    assert "Every site was proved" not in page
    assert "0 of 3 sites were proved on its own" not in page
    assert "0 of 3 sites were proved, each on its own" in page
    assert "(3 not run)" in page


def test_what_is_only_measured_is_counted_and_listed_as_not_proved() -> None:
    report = convert(rules="spd-paper").report
    page = words(report_page(report))
    assert "2 of 3 sites were proved" in page
    assert "Sites that are not exact were put into both networks" in page
    opened = page.partition('id="not-proved"')[2].partition("</ul>")[0]
    assert "distance to the original: " in opened
    assert "3: approximate." in opened


@pytest.mark.parametrize(("factor", "same"), [(0.5, False), (2.0, True)])
def test_a_smaller_network_is_another_function(factor: float, same: bool) -> None:
    report = convert(width_factor=factor).report
    assert ("same function" in headline(report)) == same
    if not same:
        assert "another function, since it was scaled first" in headline(report)
        opened = words(report_page(report)).partition('id="not-proved"')[2].partition("</ul>")[0]
        assert "scaled (width 0.5): whole model" in opened


def trained(record: BundleRecord, plans: int) -> BundleRecord:
    preprocessing = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    data = {"name": "digits", "classes": ("a", "b"), "images": {"train": 9}, "digest": "0"}
    training = {
        "data": data, "preprocessing": preprocessing, "recipe": {"name": "finetune"}, "seed": 0, "epoch": 3,
        "plans": plans,
    }  # fmt: skip
    return BundleRecord.model_validate(record.model_dump() | {"trainings": [training]})


def test_training_after_the_conversion_is_in_the_answer_and_training_before_is_not() -> None:
    conversion = convert()
    after = report_page(conversion.report, trained(conversion.record(), 1))
    assert after.count("it no longer computes what the original does") >= 3
    before = report_page(conversion.report, trained(conversion.record(), 0))
    assert "it no longer computes" not in before


def test_a_pool_has_no_weights_that_went_anywhere() -> None:
    page = words(report_page(convert().report))
    assert "A window without weights: its 4 positions as they lie in the phases." in page


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_other_precision_are_reported(dtype: torch.dtype) -> None:
    report = spdify.report(network().to(dtype), example_input=torch.zeros(1, 3, 32, 32, dtype=dtype))
    assert len(report.kernels) == 3
    assert all(cost.positions_read == 1 for cost in report.sites)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_reports_are_made_without_gradients_too(context: type[AbstractContextManager[None]]) -> None:
    with context():
        assert spdify.report(network(), example_input=torch.zeros(1, 3, 32, 32)).sites[0].positions_read == 1


def test_weights_beyond_numbers_leave_a_report_that_can_be_read() -> None:
    net = network()
    net[0].weight.data[0, 0, 0, 0] = torch.inf  # type: ignore[index, union-attr, operator]
    net[4].weight.data.fill_(1e25)  # type: ignore[index, union-attr, operator]
    report = spdify.report(net, example_input=torch.zeros(1, 3, 32, 32))
    assert report.kernels[0].before.sizes == ()
    assert report.kernels[2].before.sizes == (1e25,) * 9
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_networks_of_different_origin_have_no_sites_in_common(tmp_path: Path) -> None:
    spdify.convert("test_resnet", proof="site").save(tmp_path / "converted", onnx=False)
    assert spdify.report("test_resnet", tmp_path / "converted").compared[0].first == "as it is"
    assert spdify.report("test_efficientnet", tmp_path / "converted").compared == ()
