from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spdify import sources
from spdify.errors import CheckpointError
from spdify.sources import BuildOptions, build, parse_spec
from spdify.sources.building import _build_hollow
from spdify.sources.structure import is_hollow

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TINY = "test_resnet"


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


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


@pytest.mark.parametrize(
    ("spec", "hollow"),
    [
        ("test_resnet", True),
        ("levit_128s", True),  # keeps a buffer that no state dict has: built on the CPU, then emptied
        ("tv:mnasnet0_5", True),  # asks for the version of what it reads
        ("tests/sources/test_building.py:net", False),
    ],
)
def test_a_checkpoint_that_fits_is_never_beside_other_weights(tmp_path: Path, spec: str, *, hollow: bool) -> None:
    size = (3, 224, 224)
    original = build(spec, BuildOptions(seed=1, input_size=size)).model
    save_file(original.state_dict(), tmp_path / "w.safetensors")

    assert is_hollow(_build_hollow(parse_spec(spec), BuildOptions(input_size=size)).model) is hollow
    model = build(spec, BuildOptions(checkpoint=tmp_path / "w.safetensors", input_size=size)).model

    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    assert dict(model.named_buffers()).keys() == dict(original.named_buffers()).keys()
    x = torch.randn(1, *size)
    assert torch.equal(model(x), original(x))


def test_a_checkpoint_in_half_precision_gives_a_model_in_its_own(
    tmp_path: Path, tiny_weights: dict[str, Tensor]
) -> None:
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in tiny_weights.items()}, tmp_path / "w.safetensors"
    )

    model = build(TINY, BuildOptions(checkpoint=tmp_path / "w.safetensors")).model

    assert all(torch.equal(tensor, tiny_weights[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.dtype == tiny_weights[name].dtype for name, tensor in model.state_dict().items())


def test_an_incomplete_checkpoint_is_told_as_before(tmp_path: Path, tiny_weights: dict[str, Tensor]) -> None:
    del tiny_weights["fc.bias"]
    save_file(tiny_weights, tmp_path / "w.safetensors")

    with pytest.raises(CheckpointError, match=r"into ResNet: 1 missing, 0 unexpected.*\n *missing: fc\.bias"):
        build(TINY, BuildOptions(checkpoint=tmp_path / "w.safetensors"))
