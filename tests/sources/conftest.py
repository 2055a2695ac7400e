"""A machine without a network, and tiny models with weights on the disk."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TINY = "test_resnet"
"""A model that timm keeps for tests: 0.5 million parameters."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No name can be resolved, and the caches are empty folders; gives the folder of the Hub's cache."""

    def no_network(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    cache = tmp_path / "hub"
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return cache


@pytest.fixture
def tiny_weights() -> dict[str, Tensor]:
    """Weights of the tiny model that no seed gives."""
    state = timm.create_model(TINY).state_dict()
    return {k: torch.full_like(v, 0.25) if v.is_floating_point() else v for k, v in state.items()}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder as timm writes it for the Hub: a tiny model with 7 classes and one input channel."""
    folder = tmp_path / "published"
    folder.mkdir()
    model = timm.create_model(TINY, num_classes=7, in_chans=1)
    save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [1, 96, 96], "num_classes": 7, "mean": [0.5], "std": [0.2], "crop_pct": 0.9}
    cfg |= {"interpolation": "bilinear", "classifier": "fc", "first_conv": "conv1.0"}
    config = {"architecture": TINY, "num_classes": 7, "pretrained_cfg": cfg, "model_args": {"in_chans": 1}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
