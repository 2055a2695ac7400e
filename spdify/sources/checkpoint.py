"""Checkpoint files: safetensors, and PyTorch's own as far as they can be read without running code from them."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from timm.models import clean_state_dict
from torch import Tensor

from spdify.errors import CheckpointError, require_plain

# Averaged weights first: they are what was evaluated where both are kept, and what timm prefers, too.
_CONTAINERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
_DEPTH = 3
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_LFS = b"version https://git-lfs"
_SAFETENSORS_JSON_AT = 8
_HEAD_BYTES = 64
_MAPPED_BYTES = 64 * 2**20

_RESAVE = (
    "Where you trust the file, load it yourself and save the bare weights: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
)


def load_checkpoint_file(path: str | Path) -> dict[str, Tensor]:
    """Read the weights from a checkpoint file.

    The usual containers (`state_dict`, `model`, `model_ema` …) are opened, averaged weights first, and the prefixes
    that wrappers leave (`module.`, `_orig_mod.`) are taken off. No code from the file is run.

    Args:
        path: A safetensors file, or one written with `torch.save`.

    Returns:
        Tensors by name, on the CPU, each in memory of its own that is no file's.

    Raises:
        CheckpointError: There is no such file, it is damaged, it holds no weights, or reading it would run code.
    """
    path = Path(path)
    head = _head(path)
    if head.startswith(_LFS):
        raise CheckpointError(
            f"Cannot read the checkpoint {path}: it is a Git LFS pointer, not the weights.", hint="Run git lfs pull."
        )
    if _is_safetensors(path, head):
        return _bare_weights(path, _read_safetensors(path))
    if not head.startswith((_ZIP, _PICKLE)):
        raise CheckpointError(
            f"Cannot read the checkpoint {path}: expected safetensors or a file of torch.save, got neither; "
            f"it begins with {head[:16]!r}.",
            hint="The download may have brought something else, or other formats must be converted first.",
        )
    return _apart(_bare_weights(path, _read_torch(path)))


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(
            f"Cannot read the checkpoint {path}: expected a file, got a folder.", hint=_files_inside(path)
        )
    try:
        require_plain(path)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"Cannot read the checkpoint {path}: there is no such file.") from None
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint {path}: {error.strerror or error}.") from error
    if not head:
        raise CheckpointError(f"Cannot read the checkpoint {path}: the file is empty.")
    return head


def _files_inside(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix in {".safetensors", ".pth", ".pt", ".bin"})
    return f"It holds {', '.join(names[:5])}: name one of them." if names else "Name the file with the weights."


def _is_safetensors(path: Path, head: bytes) -> bool:
    # The content decides where it is plain: checkpoints come with all sorts of names.
    if head.startswith(_ZIP):
        return False
    return path.suffix == ".safetensors" or head[_SAFETENSORS_JSON_AT : _SAFETENSORS_JSON_AT + 1] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return _read_mapped(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"Cannot read the checkpoint {path}: it is damaged, or no safetensors file ({error}).",
            hint="The download or copy may have been cut short: get the file again.",
        ) from error


def _read_mapped(path: Path) -> dict[str, Tensor]:
    """Copy the tensors out of a file that is mapped anew again and again: what was read of a map counts as memory."""
    with safe_open(path, framework="pt", device="cpu") as file:
        waiting = list(file.keys())[::-1]
    state: dict[str, Tensor] = {}
    while waiting:
        read = 0
        with safe_open(path, framework="pt", device="cpu") as file:
            while waiting and read < _MAPPED_BYTES:
                name = waiting.pop()
                state[name] = file.get_tensor(name).clone()
                read += state[name].nbytes
    return state


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Part, in place, tensors that share memory or lie in a larger one."""
    for name, tensor in state.items():
        state[name] = tensor.detach().clone()
    return state


def _read_torch(path: Path) -> object:
    try:
        # timm's training script keeps its arguments in the checkpoint; a Namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # About formats that are refused below in any case.
            warnings.simplefilter("ignore", UserWarning)
            # An open file: given a path, newer releases go by its suffix.
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unpickling_refused(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Cannot read the checkpoint {path}: it is damaged, or not written by torch.save ({_first_line(error)}).",
            hint="Get the file again, or save the weights with safetensors.torch.save_file.",
        ) from error


def _unpickling_refused(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    """Tell a pickle that would run code from one that is no pickle at all."""
    if names := _unsafe_names(path, error):
        return CheckpointError(
            f"Refused to read the checkpoint {path}: unpickling it would run code ({', '.join(names[:5])}).",
            hint=_RESAVE,
        )
    return CheckpointError(
        f"Cannot read the checkpoint {path}: it is damaged, or a pickle that cannot be read without running "
        "code from it.",
        hint=_RESAVE,
    )


def _unsafe_names(path: Path, error: pickle.UnpicklingError) -> list[str]:
    # Only files in the zip format can be listed; in older ones, torch.load names the first that it met.
    first = re.findall(r"GLOBAL (\S+)", str(error))[:1]
    if not zipfile.is_zipfile(path):
        return first
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        return first


def _bare_weights(path: Path, content: object) -> dict[str, Tensor]:
    found = _unwrapped(content)
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        kind = f"keys {', '.join(map(str, list(found)[:5]))}" if isinstance(found, Mapping) else type(found).__name__
        raise CheckpointError(f"Cannot find weights in the checkpoint {path}: expected tensors by name, got {kind}.")
    if "n_averaged" in weights and all(k.startswith("module.") for k in weights if k != "n_averaged"):
        # The counter of torch.optim.swa_utils.AveragedModel, which wraps the model as DDP does.
        del weights["n_averaged"]
    cleaned: dict[str, Tensor] = clean_state_dict(weights)
    return cleaned


def _unwrapped(content: object) -> object:
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        key = next((k for k in _CONTAINERS if isinstance(content.get(k), Mapping)), None)
        if key is None:
            break
        content = content[key]
    return content


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200].rstrip(". ") if text else type(error).__name__
