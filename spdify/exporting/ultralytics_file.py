"""A file of Ultralytics' package (.pt): read back, built again as its trainer does, and fused; all compared."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from spdify.engine.ultralytics_hooks import is_ultralytics, register
from spdify.errors import ExportError
from spdify.records import Check
from spdify.sources.ultralytics_package import ultralytics
from spdify.verification.compare import relative_error

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from spdify.exporting.examples import MakeInputs
    from spdify.exporting.options import OnnxOptions

FILE = "model.pt"
BATCH = 2


def export_ultralytics(
    model: nn.Module, folder: Path, *, make_inputs: MakeInputs, options: OnnxOptions
) -> tuple[tuple[str, ...], list[Check]]:
    """Write a network of Ultralytics' package as `model.pt`, which its `YOLO` class validates, trains and exports.

    The file is a pickled module that names classes of the package and, if the network was converted, of spdify: both
    must be installed where it is read. Weights are in float32.

    Args:
        model: In eval mode, float32, on the CPU; not changed.
        folder: Where the file goes.
        make_inputs: Gives example inputs (args, kwargs) for a batch size.
        options: Tolerance of the fused network.

    Returns:
        Name of the file, and the checks.

    Raises:
        ExportError: It is no network of the package, or cannot be pickled.
    """
    if not is_ultralytics(model):
        raise ExportError(
            f"cannot write {type(model).__name__} for Ultralytics: it is no network of its package",
            hint="Convert one: spdify convert ultralytics:yolov5n.",
        )
    register()
    (args, kwargs), file = make_inputs(BATCH), folder / FILE
    content = {
        "model": copy.deepcopy(model), "train_args": {}, "version": ultralytics().__version__,
        "date": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    try:
        torch.save(content, file)
    except Exception as error:
        raise ExportError(f"cannot write {type(model).__name__} for Ultralytics: {error}") from error

    def run(network: nn.Module) -> object:
        with torch.no_grad():
            return network.eval()(*args, **kwargs)

    def compared(name: str, network: nn.Module, tolerance: float, detail: str, *, fused: bool = False) -> Check:
        error = relative_error(_left_by_fusing(expected) if fused else expected, run(network))
        outcome = "passed" if error <= tolerance else "failed"
        return Check(name=name, outcome=outcome, value=error, tolerance=tolerance, detail=detail)  # type: ignore[arg-type]

    expected = run(copy.deepcopy(model))
    read: Any = ultralytics("nn.tasks").load_checkpoint(str(file))[0]
    again = type(read)(read.yaml, ch=read.yaml["channels"], nc=len(read.names), verbose=False)
    again.load(read, verbose=False)
    return (FILE,), [
        compared("read back", read, 0.0, "by the package's load_checkpoint"),
        compared("built again", again, 0.0, "from its configuration and weights, as the package's trainer does"),
        compared("fuse()", copy.deepcopy(read).fuse(verbose=False), options.tolerance, "the deployed form", fused=True),
    ]


def _left_by_fusing(output: object) -> object:
    """Give what a fused network puts out, too: of two heads, one of which only training reads, the other."""
    match output:
        case (predictions, {"one2one": head}):
            return (predictions, head)
    return output
