from __future__ import annotations

import copy
import re

import pytest
import timm
import torch
from torch import nn

from spdify.errors import CheckpointError
from spdify.sources import load_weights
from spdify.sources.structure import hollow_out
from spdify.sources.weights import assign_state, assign_weights


def net(classes: int = 4, channels: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, classes))


def test_weights_that_fit_are_loaded() -> None:
    source, target = net(), net()

    load_weights(target, source.state_dict(), where="x")

    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_batch_norm_of_old_checkpoints_needs_no_counter() -> None:
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}

    load_weights(net(), dict(state), where="x")


def test_the_message_counts_and_lists_what_does_not_fit() -> None:
    state = dict(net(classes=9).state_dict())
    state["extra"] = state.pop("0.weight")

    with pytest.raises(CheckpointError) as caught:
        load_weights(net(), state, where="the checkpoint w.pth")

    message = caught.value.message
    assert "Cannot load the checkpoint w.pth into Sequential" in message
    assert "1 missing, 1 unexpected, 2 of another shape, of 9 entries" in message
    assert "missing: 0.weight\n" in message
    assert "unexpected: extra\n" in message
    assert "3.weight (expected 4x8, got 9x8), 3.bias (expected 4, got 9)" in message


def test_long_lists_are_cut() -> None:
    with pytest.raises(CheckpointError, match="and 4 more"):
        load_weights(net(), {"extra": torch.zeros(1)}, where="x")


def test_other_classes_are_hinted_at() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_weights(net(), net(classes=9).state_dict(), where="x")

    assert "--num-classes 9" in caught.value.hint


def test_other_channels_are_hinted_at() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_weights(net(), net(channels=1).state_dict(), where="x")

    assert "--in-chans 1" in caught.value.hint


def first_names(name: str) -> str:
    """Give the name that the authors of ConvNeXt use for an entry of timm's."""
    pairs = [
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."),
        ("conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"^head\.norm", "norm"),
        (r"^head\.fc", "head"),
    ]
    for pattern, name_there in pairs:
        name = re.sub(pattern, name_there, name)
    return name


def test_names_of_the_first_publication_are_translated_by_timm() -> None:
    source, target = timm.create_model("test_convnext"), timm.create_model("test_convnext")
    original = {first_names(name): tensor for name, tensor in source.state_dict().items()}
    assert "downsample_layers.0.0.weight" in original

    load_weights(target, original, where="x")

    loaded = target.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())


def test_a_translation_that_fits_no_better_is_told_in_the_names_given() -> None:
    model = timm.create_model("test_convnext")
    original = {first_names(name): tensor for name, tensor in model.state_dict().items()}
    del original["downsample_layers.0.0.weight"]

    with pytest.raises(CheckpointError, match=r"unexpected: downsample_layers\.0\.0\.bias"):
        load_weights(model, original, where="x")


def test_what_is_assigned_keeps_ties_dtypes_and_freezing() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "norm": nn.BatchNorm1d(2)})
    model["b"].weight = model["a"].weight
    model["a"].bias.requires_grad_(False)
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    state["b.weight"] = torch.full((2, 2), 3.0)
    copied = copy.deepcopy(model)
    load_weights(copied, state, where="x")

    hollow_out(model)
    assign_weights(model, state, where="x")

    assert model["a"].weight is model["b"].weight
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in copied.parameters()]
    for name, tensor in copied.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
        assert model.state_dict()[name].dtype == tensor.dtype


def test_buffers_that_are_shared_stay_so() -> None:
    model = nn.ModuleDict({"a": nn.Module(), "b": nn.Module()})
    for module in model.values():
        module.register_buffer("table", torch.ones(2))
    model["b"].table = model["a"].table

    assign_state(model, {"a.table": torch.zeros(2), "b.table": torch.zeros(2)})

    assert model["a"].table is model["b"].table
