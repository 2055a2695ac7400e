"""Writing a bundle's files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors import TensorSpec, serialize_file
from torch import Tensor

from spdify.bundle.card import model_card
from spdify.bundle.reading import CONFIG_FILE, PLAN_FILE, REPORT_FILE, SHARED_KEY, WEIGHTS_FILE
from spdify.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spdify.records import BundleRecord, Report


def write_bundle(
    folder: Path, *, state: Mapping[str, Tensor], record: BundleRecord, report: Report, pages: Mapping[str, str]
) -> None:
    """Write everything but the ONNX file into an existing folder.

    Args:
        folder: A staged folder.
        state: State dict of the converted model.
        record: Content of `spdify.json`.
        report: Content of `report.json`.
        pages: The report for people: texts by the names of their files.

    Raises:
        OSError: A file cannot be written; `staged_folder` tells it in words.
        SafetensorError: The same, of the weights.
        BundleError: The state dict holds something that is no tensor.
    """
    texts = {
        CONFIG_FILE: json.dumps(timm_config(record), indent=2) + "\n",
        PLAN_FILE: record.model_dump_json(indent=2) + "\n",
        REPORT_FILE: report.model_dump_json(indent=2) + "\n",
        "README.md": model_card(record, report),
        **pages,
    }
    write_weights(folder / WEIGHTS_FILE, state)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def write_weights(file: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, which takes no tensor twice: names of shared ones go to the metadata."""
    kept: dict[tuple[object, ...], str] = {}
    tensors, shared = {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise BundleError(
                f"cannot write {name} of the state dict: expected a tensor, got {type(tensor).__name__}",
                hint="Extra state (`get_extra_state`) is not data that safetensors can hold: convert without it.",
            )
        place = (_address(tensor), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in kept:
            shared[name] = kept[place]
            continue
        kept[place] = name
        tensors[name] = tensor.detach().cpu().contiguous()
    metadata = {"format": "pt"} | ({SHARED_KEY: json.dumps(shared)} if shared else {})
    # What safetensors' save_file does, but for the addresses: it writes from where the tensors are, no copy is made.
    serialize_file({name: _place_of(tensor) for name, tensor in tensors.items()}, file, metadata=metadata)


def _place_of(tensor: Tensor) -> TensorSpec:
    """Say where a tensor lies; it must outlive what is given."""
    return TensorSpec(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tensor.shape,
        data_ptr=_address(tensor),
        data_len=tensor.nbytes,
    )


def _address(tensor: Tensor) -> int:
    """Give the address to read a tensor from; asked for one to write to, PyTorch would copy what is shared.

    Older releases of PyTorch have no other address: there it is copied.
    """
    return int(getattr(tensor, "const_data_ptr", tensor.data_ptr)())


def timm_config(record: BundleRecord) -> dict[str, Any]:
    """Give `config.json` with timm's keys; `pretrained_cfg` holds the preprocessing where it is known."""
    source, classes = record.source, record.classes
    count = len(classes) or source.num_classes
    config: dict[str, Any] = {
        "architecture": source.name,
        "num_classes": count,
        "library_name": "spdify",
        "model_args": dict(source.kwargs),
    }
    if classes:
        config["label_names"] = list(classes)
    if record.preprocessing is not None:
        config["pretrained_cfg"] = record.preprocessing.model_dump(mode="json") | {"num_classes": count}
    return config
