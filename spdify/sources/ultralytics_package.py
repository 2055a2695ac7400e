"""Ultralytics' package (AGPL-3.0): an extra, imported where it is asked for only, and kept from acting by itself."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

import torch

from spdify.errors import SourceError

if TYPE_CHECKING:
    from types import ModuleType

#: What it says in a message, and where.
EXTRA = "spdify[ultralytics]"


def ultralytics(part: str = "") -> ModuleType:
    """Import the package, or a module of it.

    What it logs goes to stderr, for stdout carries results; and it must neither install packages by itself nor ask the
    network whether there is one, as it does on import.

    Args:
        part: `nn.tasks`, say; the package itself by default.

    Raises:
        SourceError: It is not installed, or cannot be imported.
    """
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    name = f"ultralytics.{part}" if part else "ultralytics"
    try:
        # Its log handler takes stdout, and its classes hold tensors of the device, as they are on import.
        with contextlib.redirect_stdout(sys.stderr), torch.device("cpu"):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "ultralytics":
            raise _broken(error) from error
        raise SourceError(
            "cannot use Ultralytics' models: the package ultralytics is not installed",
            hint=f"Install it, if its licence (AGPL-3.0) suits you: pip install '{EXTRA}'.",
        ) from error
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> SourceError:
    return SourceError(
        f"cannot use Ultralytics' models: importing the package fails: {type(error).__name__}: {error}",
        hint=f"Install it anew: pip install '{EXTRA}'. On machines without a display, opencv-python-headless in the "
        "place of opencv-python may help.",
    )
