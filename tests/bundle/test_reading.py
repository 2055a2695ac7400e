from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from spdify.bundle import is_bundle, read_record, read_report, read_shapes, read_weights
from spdify.bundle import reading as module
from spdify.bundle.writing import write_weights
from spdify.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_a_bundle(tmp_path: Path) -> None:
    assert not is_bundle(tmp_path)
    assert not is_bundle("resnet50")
    assert not is_bundle("x" * 300)
    assert not is_bundle("tv:resnet18")
    (tmp_path / "spdify.json").mkdir()
    assert not is_bundle(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"spdify\.json: No such file or directory\nA bundle is a folder"):
        read_record(tmp_path)
    with pytest.raises(BundleError, match=r"report\.json: No such file"):
        read_report(tmp_path)
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"null", b"[]", b"{" * 100_000, b'{"seed": ' + b"9" * 10_000 + b"}", b'{"schema_version": 2}'],
)
def test_damaged_record(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spdify.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"cannot read .*spdify\.json: at .*\nConvert the model again"):
        read_record(tmp_path)


def test_huge_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 100)
    (tmp_path / "spdify.json").write_bytes(b" " * 101)
    with pytest.raises(BundleError, match="expected at most 100 bytes, got more"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "shared", ["[]", "nonsense", '{"b": "missing"}', '{"b": ["a"]}', '{"b": {"a": 1}}', "[" * 100_000]
)
def test_damaged_list_of_shared_tensors(tmp_path: Path, shared: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"shared": shared})
    with pytest.raises(BundleError, match="its list of shared tensors is damaged"):
        read_weights(tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1000)}, file)
    data = file.read_bytes()
    for bad in (data[:-1], data[:20], b"", b"\xff" * 100, os.urandom(100)):
        file.write_bytes(bad)
        with pytest.raises(BundleError, match="copy or convert it again"):
            read_weights(tmp_path)


def test_shared_tensors_are_one_again(tmp_path: Path) -> None:
    metadata = {"shared": json.dumps({"b": "a"})}
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors", metadata=metadata)
    state = read_weights(tmp_path)
    assert state["a"] is state["b"]


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("spdify.json", "model.safetensors", "report.json"):
        os.mkfifo(tmp_path / name)
    for read in (read_record, read_report, read_weights, read_shapes):
        with pytest.raises(BundleError, match="not a plain file"):
            read(tmp_path)


def test_shapes_are_those_of_the_weights(tmp_path: Path) -> None:
    tensor = torch.ones(2, 3)
    write_weights(tmp_path / "model.safetensors", {"a": tensor, "b": tensor, "c": torch.ones(())})
    assert read_shapes(tmp_path) == {"a": (2, 3), "b": (2, 3), "c": ()}
