from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

import spdify
from spdify.bundle import read_record, read_report, read_weights
from spdify.bundle.writing import timm_config, write_weights
from spdify.errors import BundleError
from spdify.records import BundleRecord, Report
from spdify.sources import build
from tests.versions import needs_const_addresses

if TYPE_CHECKING:
    from pathlib import Path

    from spdify import Conversion

PYTORCH = {"format": "pt"}
FILES = {"model.safetensors", "config.json", "spdify.json", "report.json", "report.md", "report.html", "README.md"}


def test_files(conversion: Conversion, tmp_path: Path) -> None:
    record = conversion.save(tmp_path / "out", onnx=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert read_record(tmp_path / "out") == record
    assert read_report(tmp_path / "out") == conversion.report
    for kind, name in ((BundleRecord, "spdify.json"), (Report, "report.json")):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert kind.model_validate_json(text).model_dump_json(indent=2) + "\n" == text


def test_card_tells_how_to_load(conversion: Conversion, tmp_path: Path) -> None:
    conversion.save(tmp_path / "out", onnx=False)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: spdify\n")
    assert 'spdify.load("path/to/this/folder", model=factory())' in text
    assert f"{conversion.report.after.params:,}" in text
    assert ".onnx" not in text


def test_weights_round_trip_bit_by_bit(conversion: Conversion, tmp_path: Path) -> None:
    conversion.save(tmp_path / "out", onnx=False)
    state, written = conversion.model.state_dict(), read_weights(tmp_path / "out")
    assert list(written) != []
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert "second.weight" not in file.keys()  # noqa: SIM118 - no mapping
        assert json.loads(file.metadata()["shared"]) == {"second.weight": "first.weight"}


def test_tied_weights_load_tied_and_buffers_keep_their_values(
    conversion: Conversion, tied: nn.Module, tmp_path: Path
) -> None:
    conversion.save(tmp_path / "out", onnx=False)
    loaded = spdify.load(tmp_path / "out", model=tied)
    assert loaded.first.weight is loaded.second.weight
    assert torch.equal(loaded.scale, tied.scale)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 9, 8)
    assert torch.equal(loaded(x), conversion.model(x))
    torch.testing.assert_close(loaded(x), tied(x))


def test_views_and_odd_tensors(tmp_path: Path) -> None:
    whole = torch.randn(4, 6)
    state = {
        "whole": whole, "view": whole[:2], "flipped": whole.t(), "again": whole, "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3), "half": torch.randn(2).bfloat16(),
    }  # fmt: skip
    write_weights(tmp_path / "model.safetensors", state)
    written = read_weights(tmp_path)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[k], v) and written[k].dtype == v.dtype for k, v in state.items())


def test_extra_state_is_no_tensor(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot write _extra_state of the state dict: expected a tensor, got dict"):
        write_weights(tmp_path / "model.safetensors", {"_extra_state": {}})  # type: ignore[dict-item]


def test_config_has_the_keys_of_timm() -> None:
    record = BundleRecord(source=build("test_resnet").source, plans=(), seed=0, versions={}, proof="none", checks=())
    config = timm_config(record)
    assert config["architecture"] == "test_resnet"
    assert config["num_classes"] == 1000
    cfg = timm.create_model("test_resnet").pretrained_cfg
    for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "num_classes"):
        expected = cfg[key]
        assert config["pretrained_cfg"][key] == (list(expected) if isinstance(expected, tuple) else expected)
    json.dumps(config)


DTYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "int64", "int32", "int16",
    "int8", "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip


def test_the_file_is_the_one_that_safetensors_would_write(tmp_path: Path) -> None:
    state = {name: (torch.arange(6).reshape(2, 3) % 2).to(getattr(torch, name)) for name in DTYPES}
    state |= {"transposed": torch.randn(3, 4).t(), "scalar": torch.tensor(2.0), "none": torch.empty(0, 2)}
    state |= {"last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), "part": torch.randn(8)[2:5]}
    write_weights(tmp_path / "ours", state)
    save_file({name: t.contiguous().clone() for name, t in state.items()}, tmp_path / "theirs", metadata=PYTORCH)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@needs_const_addresses
def test_writing_copies_nothing(tmp_path: Path) -> None:
    weight = torch.randn(4, 4)
    copied = torch._lazy_clone(weight)
    write_weights(tmp_path / "model.safetensors", {"copied": copied})
    assert weight.const_data_ptr() == copied.const_data_ptr()
    assert torch.equal(read_weights(tmp_path)["copied"], weight)


def test_a_dtype_that_the_format_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match="complex128"):
        write_weights(tmp_path / "model.safetensors", {"a": torch.zeros(2, dtype=torch.complex128)})
