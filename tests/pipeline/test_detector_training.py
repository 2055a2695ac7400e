"""A converted detector of torchvision in a training step and a validation pass, as its users would write them. Slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import spdify
from spdify.datasets.detection import open_detection_data
from spdify.pipeline.evaluating import evaluate
from spdify.records import Machine, MeasuredDetector
from tests.detection.made import CLASSES, write_yolo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_retinanet_learns_and_is_measured(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "made")
    conversion = spdify.convert(
        "tv:retinanet_resnet50_fpn", num_classes=len(CLASSES) + 1, input_size=(3, 64, 96), proof="site",
        model_kwargs={"min_size": 64, "max_size": 96},
    )  # fmt: skip
    conversion.save(tmp_path / "bundle", onnx=False)
    model: Any = spdify.load(tmp_path / "bundle").train()
    samples = open_detection_data(str(folder)).images
    images = [torch.rand(3, 160, 200), torch.rand(3, 120, 160)]
    targets = [
        {
            "boxes": torch.tensor([[o.box[0], o.box[1], o.box[0] + o.box[2], o.box[1] + o.box[3]] for o in s.objects]),
            "labels": torch.tensor([o.label + 1 for o in s.objects]),
        }
        for s in samples[:2]
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    stem = model.backbone.body.conv1.weight
    before, totals = stem.clone(), []
    for _ in range(3):
        losses = model(images, targets)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert set(losses) == {"classification", "bbox_regression"}
    assert totals[-1] < totals[0]
    assert not torch.equal(stem, before)
    found = evaluate(model, data=str(folder), machine=Machine(device="cpu"))
    assert isinstance(found, MeasuredDetector)
    assert (found.images, found.objects.total) == (3, 4)
    assert found.precision.ap is not None
