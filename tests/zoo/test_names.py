from __future__ import annotations

import pytest

from spdify.errors import UsageError
from spdify.zoo.names import family_of, model_names, parse_shard
from spdify.zoo.records import SweepSettings


def test_shards_part_the_models() -> None:
    whole = model_names(SweepSettings(filter="resnet*"))
    shards = [model_names(SweepSettings(filter="resnet*", shard=f"{i}/3")) for i in (1, 2, 3)]
    assert len(whole) > 20
    assert sorted(name for shard in shards for name in shard) == sorted(whole)


def test_filter_and_source() -> None:
    assert model_names(SweepSettings(filter="torchvision:resnet18")) == ("torchvision:resnet18",)
    assert set(model_names(SweepSettings(filter="resnet18"))) == {"timm:resnet18", "torchvision:resnet18"}
    assert model_names(SweepSettings(filter="resnet18", source="timm")) == ("timm:resnet18",)
    with pytest.raises(UsageError, match="no model"):
        model_names(SweepSettings(filter="resnet18", source="timm", shard="1/1").model_copy(update={"filter": "x"}))


def test_all_names_are_there() -> None:
    names = model_names(SweepSettings())
    assert len(names) == len(set(names)) > 1400


@pytest.mark.parametrize("shard", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_a_bad_shard_is_refused(shard: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        parse_shard(shard)


def test_families() -> None:
    assert family_of("timm:resnet18") == "timm.models.resnet"
    assert family_of("torchvision:fasterrcnn_resnet50_fpn") == "torchvision.models.detection.faster_rcnn"
