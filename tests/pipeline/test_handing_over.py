"""Detectors are trained elsewhere: who asks for it is told where, before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torchvision
from torch import nn

from spdify.errors import RefusedError
from spdify.pipeline.finetuning import finetune
from spdify.pipeline.handing_over import refuse_other_training
from spdify.pipeline.studying import Study, run_study
from spdify.training import make_recipe

if TYPE_CHECKING:
    from pathlib import Path

YOLO = """These lines hand it over:
spdify convert ultralytics:yolov5n -o yolo-spd
spdify export yolo-spd --format ultralytics -o yolo-spd-pt
yolo train model=yolo-spd-pt/model.pt data=DATA.yaml"""


def test_ultralytics_networks_are_handed_over_in_three_lines(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="have their own trainer") as caught:
        finetune("ultralytics:yolov5n", tmp_path / "run", data="none")
    assert caught.value.hint == YOLO
    assert not list(tmp_path.iterdir())


def test_a_study_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="have their own trainer"):
        run_study(Study(model="ultralytics:yolov5n", recipe=make_recipe("finetune")), tmp_path / "study")


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_torchvision_s_detectors_go_to_its_own_script(name: str) -> None:
    with pytest.raises(RefusedError, match="torchvision's detectors have their own training") as caught:
        refuse_other_training(f"tv:{name}")
    assert "spdify.load('detector-spd')" in caught.value.hint
    detector = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    with pytest.raises(RefusedError, match="torchvision's detectors"):
        refuse_other_training(detector)


@pytest.mark.parametrize("model", ["resnet18", "tv:resnet18", "net.py:build", nn.Linear(2, 2)])
def test_all_else_is_trained_here(model: str | nn.Module) -> None:
    refuse_other_training(model)
