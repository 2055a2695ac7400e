from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from spdify import sources
from spdify.errors import CheckpointError
from spdify.sources import BuildOptions, build

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TINY = "test_resnet"


def first_weight(**wishes: object) -> Tensor:
    return build(TINY, BuildOptions(**wishes)).model.state_dict()["conv1.0.weight"]


def test_a_seed_gives_the_same_weights_and_another_gives_others() -> None:
    torch.manual_seed(123)
    first = first_weight(seed=1)
    torch.manual_seed(456)

    assert torch.equal(first_weight(seed=1), first)
    assert not torch.equal(first_weight(seed=2), first)


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()

    build(TINY)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_checkpoint_is_loaded_and_named(tmp_path: Path, tiny_weights: dict[str, Tensor]) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(tiny_weights, path)

    loaded = build(TINY, BuildOptions(checkpoint=path))

    assert loaded.source.weights == "mine.safetensors"
    assert not loaded.model.training
    assert all(torch.equal(tensor, tiny_weights[name]) for name, tensor in loaded.model.state_dict().items())


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, tiny_weights: dict[str, Tensor]) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(tiny_weights, path)

    with pytest.raises(CheckpointError, match=r"mine\.safetensors into ResNet: .* 2 of another shape") as caught:
        build(TINY, BuildOptions(checkpoint=path, num_classes=7))

    assert "--num-classes 1000" in caught.value.hint


def test_the_public_names_are_there() -> None:
    assert all(hasattr(sources, name) for name in sources.__all__)
