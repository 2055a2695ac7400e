from __future__ import annotations

import argparse
import os
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spdify.errors import CheckpointError
from spdify.sources import checkpoint, load_checkpoint_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
AVERAGED = {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def prefixed(prefix: str, weights: dict[str, torch.Tensor] = WEIGHTS) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def same(read: dict[str, torch.Tensor], weights: dict[str, torch.Tensor] = WEIGHTS) -> bool:
    return read.keys() == weights.keys() and all(torch.equal(read[name], weights[name]) for name in weights)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    save_file(WEIGHTS, tmp_path / name)

    assert same(load_checkpoint_file(tmp_path / name))


def test_a_torch_file_is_read_under_the_other_suffix(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.safetensors")

    assert same(load_checkpoint_file(str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        {"model": prefixed("module."), "optimizer": {"state": {}}},
        {"model": {"state_dict": WEIGHTS}},
        {"state_dict": prefixed("module._orig_mod.")},
        prefixed("_orig_mod.module."),
        {"model_ema": None, "model": WEIGHTS},
        {"n_averaged": torch.tensor(4), **prefixed("module.")},
    ],
)
def test_containers_and_prefixes_are_taken_off(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")

    assert same(load_checkpoint_file(tmp_path / "w.pth"))


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_come_first(tmp_path: Path, key: str) -> None:
    torch.save({"state_dict": WEIGHTS, key: AVERAGED}, tmp_path / "w.pth")

    assert same(load_checkpoint_file(tmp_path / "w.pth"), AVERAGED)


def test_the_old_format_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth", _use_new_zipfile_serialization=False)

    assert same(load_checkpoint_file(tmp_path / "w.pth"))


class Payload:
    """Leaves a folder where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("writer", ["torch", "old torch", "pickle"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, writer: str) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    content = {"state_dict": {"a": Payload(mark)}}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")

    with pytest.raises(CheckpointError, match="code") as caught:
        load_checkpoint_file(path)

    assert not mark.exists()
    assert "safetensors" in caught.value.hint
    torch.load(path, weights_only=False) if writer != "pickle" else pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists(), "the payload of this test does nothing"


def test_whole_modules_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=r"Refused.*torch\.nn\.modules\.linear\.Linear"):
        load_checkpoint_file(tmp_path / "w.pth")


@pytest.mark.parametrize("left", [-1, 20, 6])
def test_cut_safetensors_are_named_damaged(tmp_path: Path, left: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(CheckpointError, match=r"w\.safetensors: it is damaged"):
        load_checkpoint_file(path)


def test_cut_torch_files_are_named_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(CheckpointError, match=r"w\.pth: it is damaged"):
        load_checkpoint_file(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html>", "got neither; it begins with b'<!DOCTYPE"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_files_of_other_kinds_are_told_apart(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)

    with pytest.raises(CheckpointError, match=said):
        load_checkpoint_file(tmp_path / "w.pth")


@pytest.mark.parametrize(("content", "said"), [({"lr": 0.1}, "keys lr"), ([1], "got list"), ({}, "got keys")])
def test_files_without_weights_are_refused(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=said):
        load_checkpoint_file(tmp_path / "w.pth")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match="there is no such file"):
        load_checkpoint_file(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="got a folder") as caught:
        load_checkpoint_file(tmp_path)
    assert "model.safetensors" in caught.value.hint


def test_a_file_is_mapped_anew_and_the_tensors_are_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_MAPPED_BYTES", 1)  # each tensor through a mapping of its own
    save_file(WEIGHTS, tmp_path / "w.safetensors")

    read = load_checkpoint_file(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(bytes((tmp_path / "w.safetensors").stat().st_size))

    assert same(read)


def test_tensors_that_share_memory_in_a_file_are_parted(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    torch.save({"a": whole, "b": whole, "part": whole[:2], "trained": nn.Parameter(torch.ones(2))}, tmp_path / "w.pth")

    read = load_checkpoint_file(tmp_path / "w.pth")
    read["a"].zero_()

    assert torch.equal(read["b"], whole)
    assert read["part"].untyped_storage().nbytes() == 8
    assert read["trained"].is_leaf
