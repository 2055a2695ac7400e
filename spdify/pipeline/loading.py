"""From a bundle back to the network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from spdify.bundle import read_record, read_weights
from spdify.engine import check_fingerprint, rebuild
from spdify.errors import BundleError
from spdify.sources import build_structure

if TYPE_CHECKING:
    from torch import Tensor

    from spdify.records import BundleRecord


def load(folder: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """Load a converted network from its bundle.

    Nothing in the bundle is run: registry models are built by timm or torchvision from their name; for a network of your own
    hand over a freshly built original.

    Args:
        folder: What `spdify convert` or `Conversion.save` wrote.
        model: The original network, with any weights; not changed. Needed for code of your own, taken instead of building
            for registry models.
        device: Where the weights go.

    Returns:
        The converted network with its weights, in eval mode.

    Raises:
        BundleError: The folder is no bundle, is damaged, or needs `model`.
        PlanError: `model` is not the network that was converted.
        SourceError: The registry no longer builds the model.
    """
    folder = Path(folder)
    record = read_record(folder)
    network = build_converted(record, model, folder)
    load_state(network, read_weights(folder), where=str(folder))
    return network.to(device).eval()


def build_converted(record: BundleRecord, model: nn.Module | None, folder: Path) -> nn.Module:
    """Give the converted structure, weights not yet loaded: the original, then each plan in turn."""
    if model is not None:
        network = copy.deepcopy(model)
    elif record.source.is_registry:
        network = build_structure(record.source, device="meta")
    else:
        raise BundleError(
            f"cannot build {record.source.spec} for {folder}: it is code of your own, which a bundle does not hold",
            hint="Hand it over: spdify.load(folder, model=factory()); on the command line, --code path/to/file.py:factory.",
        )
    for plan in record.plans:
        check_fingerprint(network, plan)
        rebuild(network, plan)
    return network


def load_state(network: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Put a complete state dict into a network that may be on the meta device.

    Raises:
        BundleError: Names or shapes do not fit.
    """
    tied = _tied_names(network)
    if tied:  # assigning would untie them
        network.to_empty(device="cpu")
    try:
        network.load_state_dict(state, assign=not tied)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise BundleError(
            f"cannot load the weights of {where}: {' '.join(line.strip() for line in lines[1:4])}",
            hint="The bundle is damaged, or its weights are those of another network.",
        ) from error


def _tied_names(network: nn.Module) -> bool:
    """Whether one parameter belongs to two different modules."""
    owners: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if owners.setdefault(id(parameter), id(module)) != id(module):
                return True
    return False
