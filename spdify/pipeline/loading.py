"""From a bundle back to the network."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING

from spdify.bundle import read_record, read_shapes, read_weights
from spdify.engine import check_fingerprint, rebuild
from spdify.errors import BundleError, PlanError, SpdifyError
from spdify.sources import assign_state, build_structure, fold_branches

MISFIT = "The bundle is damaged, or its weights are those of another network."
#: Elements that the original of a bundle may have: so many in any case (512 MiB in float32), and so many times those
#: of its weights: a new classifier or fewer blocks may have made them fewer.
MOST_AT_LEAST, MOST_FACTOR = 2**27, 16

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from spdify.records import BundleRecord, Plan


def load(folder: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """Load a converted network from its bundle.

    Nothing in the bundle is run: registry models are built by timm or torchvision from their name; for a network of
    your own hand over a freshly built original.

    Args:
        folder: What `spdify convert` or `Conversion.save` wrote.
        model: The original network, with any weights; not changed. Needed for code of your own, taken instead of
            building for registry models.
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
    _check_shapes(network, read_shapes(folder), where=str(folder))
    load_state(network, read_weights(folder), where=str(folder))
    return network.to(device).eval()


def build_converted(
    record: BundleRecord, model: nn.Module | None, folder: Path, *, plans: int | None = None
) -> nn.Module:
    """Give the converted structure, weights not yet loaded: the original, then each plan in turn.

    Args:
        record: Of the bundle.
        model: The original, where it is code of the caller's own.
        folder: For messages.
        plans: How many of the plans; all by default.
    """
    if model is not None:
        network = copy.deepcopy(model)
        if record.source.reparameterized:
            network = fold_branches(network, name=record.source.spec)
    elif record.source.is_registry:
        declared = sum(math.prod(shape) for shape in read_shapes(folder).values())
        network = build_structure(record.source, device="meta", most=MOST_AT_LEAST + MOST_FACTOR * declared)
    else:
        raise BundleError(
            f"cannot build {record.source.spec} for {folder}: it is code of your own, which a bundle does not hold",
            hint="Hand it over: spdify.load(folder, model=factory()), or --code path/to/file.py:factory.",
        )
    for plan in record.plans[:plans]:
        try:
            check_fingerprint(network, plan)
        except PlanError as error:
            raise PlanError(f"{error.message}{_first_difference(network, folder)}", hint=error.hint) from error
        _rebuild(network, plan, folder)
    return network


def _first_difference(network: nn.Module, folder: Path) -> str:
    """Name a tensor that the bundle has in another shape; the last one: classifiers differ most, sites by right."""
    own, saved = _shapes(network), read_shapes(folder)
    for name in reversed([name for name in own if name in saved]):
        if own[name] != saved[name]:
            return f"; {name}: expected {saved[name]}, got {own[name]}"
    return ""


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _check_shapes(network: nn.Module, saved: dict[str, tuple[int, ...]], *, where: str) -> None:
    """Refuse weights of another network before any of them is read.

    Raises:
        BundleError: Names or shapes do not fit.
    """
    own = _shapes(network)
    first = next((name for name in (*own, *saved) if own.get(name) != saved.get(name)), None)
    if first is not None:
        expected, got = own.get(first, "no such tensor"), saved.get(first, "none")
        raise BundleError(f"cannot load the weights of {where}: {first}: expected {expected}, got {got}", hint=MISFIT)


def _rebuild(network: nn.Module, plan: Plan, folder: Path) -> None:
    """Put the blocks of a plan into a network; a plan of the right form may still hold geometries that nothing has."""
    try:
        rebuild(network, plan)
    except SpdifyError:
        raise
    except Exception as error:
        raise BundleError(
            f"cannot build the blocks of {folder}: {type(error).__name__}: {error}",
            hint="The plan in spdify.json is damaged: convert the model again.",
        ) from error


def load_state(network: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Put a complete state dict into a network that may be on the meta device.

    Raises:
        BundleError: Names or shapes do not fit.
    """
    try:
        assign_state(network, state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise BundleError(
            f"cannot load the weights of {where}: {' '.join(line.strip() for line in lines[1:4])}",
            hint=MISFIT,
        ) from error
