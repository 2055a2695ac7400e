"""A trained network of the user's own keeps its accuracy, prediction by prediction.

Needs real data: SPDIFY_DATA names a folder with `cifar_resnet.py`, `cifar10_resnet20.safetensors` (its trained
weights) and `cifar10-test.zip` (CIFAR-10's test images as `cifar10/test/<class>/*.png`).
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import spdify
from spdify.sources import BuildOptions, build

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(os.environ.get("SPDIFY_DATA", ""))
PUBLISHED = 0.9260
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "cifar10-test.zip").is_file(), reason="SPDIFY_DATA names no folder with the data"),
]


def predictions(run: Callable[[torch.Tensor], torch.Tensor], images: DataLoader) -> tuple[torch.Tensor, float]:
    """Give every predicted class, and the accuracy."""
    guesses, right = [], 0
    with torch.no_grad():
        for x, y in images:
            guess = run(x).argmax(1)
            guesses.append(guess)
            right += int((guess == y).sum())
    return torch.cat(guesses), right / len(images.dataset)


def test_resnet20_keeps_every_prediction(tmp_path: Path) -> None:
    zipfile.ZipFile(DATA / "cifar10-test.zip").extractall(tmp_path)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    images = DataLoader(ImageFolder(str(tmp_path / "cifar10" / "test"), transform), batch_size=500)
    spec = f"{DATA / 'cifar_resnet.py'}:resnet20"
    wishes = {"checkpoint": DATA / "cifar10_resnet20.safetensors", "input_size": (3, 32, 32)}
    original = build(spec, BuildOptions(**wishes)).model
    conversion = spdify.convert(spec, **wishes)
    conversion.save(tmp_path / "out")
    converted: nn.Module = spdify.load(tmp_path / "out", model=original)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    name = session.get_inputs()[0].name
    expected, accuracy = predictions(original, images)
    actual, converted_accuracy = predictions(converted, images)
    exported, onnx_accuracy = predictions(lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), images)
    assert len(expected) == 10_000
    assert accuracy == converted_accuracy == onnx_accuracy == PUBLISHED
    assert torch.equal(expected, actual)
    assert torch.equal(expected, exported)
