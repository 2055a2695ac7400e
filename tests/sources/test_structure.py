from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm
import torch
from torch import nn

from spdify.errors import SourceError
from spdify.records import Source
from spdify.sources import build, build_structure
from spdify.sources.comparing import first_difference
from spdify.sources.structure import TooLargeError, check_rebuilds, hollow_out, is_hollow, on_meta

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spdify.sources import KwargValue


def timm_source(name: str, **kwargs: object) -> Source:
    return Source(spec=f"timm:{name}", kind="timm", name=name, kwargs=kwargs)


class Table(nn.Module):
    """Keeps a table that no state dict holds, as a buffer or as a plain attribute."""

    def __init__(self, keep: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.num_classes, self.pretrained_cfg = 0, {}
        if keep == "buffer":
            self.register_buffer("table", torch.arange(3.0), persistent=False)
        elif keep == "attribute":
            self.tables = {"x": [torch.arange(3.0)]}
        elif keep == "computed" and float(torch.arange(3.0).sum()) != 3.0:
            raise AssertionError


@pytest.fixture
def table_model() -> Iterator[str]:
    def spdify_test_table(pretrained: bool = False, keep: str = "", **_kwargs: object) -> Table:
        assert not pretrained
        return Table(keep)

    registry = timm.models._registry
    registry._model_entrypoints["spdify_test_table"] = spdify_test_table
    yield "spdify_test_table"
    del registry._model_entrypoints["spdify_test_table"]


def test_a_structure_is_on_meta_and_takes_no_memory() -> None:
    model = build_structure(timm_source("test_resnet", num_classes=7), device="meta")

    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert not model.training
    assert model.num_classes == 7


@pytest.mark.parametrize(
    ("keep", "device"), [("", "meta"), ("buffer", "cpu"), ("attribute", "cpu"), ("computed", "cpu")]
)
def test_what_meta_cannot_hold_is_built_on_the_cpu(table_model: str, keep: str, device: str) -> None:
    model = build_structure(timm_source(table_model, keep=keep), device="meta")

    assert model.conv.weight.device.type == device
    if keep == "buffer":
        assert model.table.tolist() == [0, 1, 2]
    if keep == "attribute":
        assert model.tables["x"][0].tolist() == [0, 1, 2]


def test_the_cpu_can_be_asked_for() -> None:
    model = build_structure(timm_source("test_resnet"), device="cpu")

    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("kind", ["code", "object"])
def test_code_is_not_run_by_itself(kind: str) -> None:
    source = Source(spec="os:abort", kind=kind, name="abort")

    with pytest.raises(SourceError, match="code that spdify does not run"):
        build_structure(source, device="meta")


@pytest.mark.parametrize("key", ["pretrained", "checkpoint_path", "weights"])
def test_a_record_cannot_fetch_weights(key: str) -> None:
    with pytest.raises(SourceError, match=f"its record has {key}"):
        build_structure(timm_source("test_resnet", **{key: "x"}), device="meta")


@pytest.mark.parametrize("name", ["hf-hub:a/b", "no_such_model"])
def test_a_record_can_only_name_models_of_timm(name: str) -> None:
    with pytest.raises(SourceError, match="has no model"):
        build_structure(timm_source("test_resnet", model_name=name), device="meta")


def test_an_argument_of_another_version_is_told() -> None:
    with pytest.raises(SourceError, match="nonsense"):
        build_structure(timm_source("test_resnet", nonsense=1), device="meta")


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()

    build_structure(timm_source("test_resnet"), device="cpu")

    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), None),
        (nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU()), "0: "),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()), "1: ReLU"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ReLU()), "2: nothing"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "1: ReLU() and nothing"),
    ],
)
def test_the_first_difference_is_named(other: nn.Module, where: str | None) -> None:
    found = first_difference(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), other)

    assert found is None if where is None else where in (found or "")


def test_a_difference_that_only_tensors_show_is_named() -> None:
    model, other = nn.Module(), nn.Module()
    model.scale, other.scale = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))

    assert first_difference(model, other) == "scale: (2,) and (3,)"


def test_a_record_that_builds_something_else_is_refused() -> None:
    loaded = build("test_resnet")
    wrong = loaded.source.model_copy(update={"kwargs": {"num_classes": 3}})

    check_rebuilds(loaded.model, loaded.source)
    with pytest.raises(SourceError, match=r"the first difference is at fc"):
        check_rebuilds(loaded.model, wrong)


def test_on_meta_nothing_is_drawn() -> None:
    with on_meta():
        layer = nn.Linear(3, 4)
        real = torch.empty(8, device="cpu").normal_()
        drawn = nn.init.normal_(torch.zeros(8, device="cpu"))
    assert layer.weight.is_meta
    assert real.std() > 0
    assert drawn.std() > 0


def test_what_a_state_dict_holds_is_hollowed_out_unless_attributes_hold_tensors() -> None:
    buffer, attribute = Table("buffer"), Table("attribute")
    buffer.tied = buffer.conv
    hollow_out(buffer)
    hollow_out(attribute)
    assert is_hollow(buffer)
    assert buffer.tied.weight is buffer.conv.weight
    assert torch.equal(buffer.table, torch.arange(3.0))
    assert not is_hollow(attribute)


@pytest.mark.parametrize(
    ("spec", "kwargs"),
    [
        ("timm:resnet18", {"num_classes": 2**40}),
        ("timm:resnet18", {"layers": [10**9, 1, 1, 1]}),
        ("timm:convnext_atto", {"depths": [10**6, 1, 1, 1]}),
        ("timm:convnext_atto", {"dims": [2**15] * 4}),
        ("timm:vit_tiny_patch16_224", {"img_size": [2**16, 2**16]}),
        ("timm:resnet18", {"layers": [1] * 5000}),
    ],
)
def test_a_record_cannot_fill_the_memory(spec: str, kwargs: dict[str, KwargValue]) -> None:
    source = Source(spec=spec, kind="timm", name="x", kwargs=kwargs)
    with pytest.raises(TooLargeError):
        build_structure(source, device="meta", most=2**24)


def test_a_network_within_its_bounds_is_built() -> None:
    source = Source(spec="timm:resnet18", kind="timm", name="x")
    built = build_structure(source, device="meta", most=2**24)
    assert all(parameter.is_meta for parameter in built.parameters())
