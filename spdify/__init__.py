"""Rewrite the downsampling of a trained CNN into SPD-Conv without losing what it has learned, and prove it.

`convert`, `load`, `inspect`, `report`, `apply` and `map_weights` are imported when first used: importing spdify alone
does not import PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spdify.engine import apply, map_weights
    from spdify.errors import SpdifyError
    from spdify.pipeline import Conversion, convert, inspect, load, report

__version__ = "0.1.0"

_HOMES = {
    "Conversion": "spdify.pipeline",
    "SpdifyError": "spdify.errors",
    "apply": "spdify.engine",
    "convert": "spdify.pipeline",
    "inspect": "spdify.pipeline",
    "load": "spdify.pipeline",
    "map_weights": "spdify.engine",
    "report": "spdify.pipeline",
}

__all__ = [
    "Conversion",
    "SpdifyError",
    "apply",
    "convert",
    "inspect",
    "load",
    "map_weights",
    "report",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    """Import a public name when it is first used."""
    if name not in _HOMES:
        msg = f"module 'spdify' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
