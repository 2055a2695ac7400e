"""ONNX by the TorchScript exporter: for networks whose control flow depends on data, which torch.export cannot follow.

The network is run once and what it does is written down; branches that its own code marks as scripted stay branches
(torchvision's detectors do that), others are taken as they were at that run. So the file takes inputs of one size, only
detectors are written so, and the file is compared on other images and weights than it was written with.

The exporter merges initializers that hold the same numbers, and a fresh network has many of those. So the network runs
with weights that all differ, and its own ones are put in afterwards (`spdify.exporting.weights`).
"""

from __future__ import annotations

import contextlib
import inspect
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from onnxscript import ir
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.onnx import ONNXProgram, TrainingMode
from torch.onnx._constants import ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET as NEWEST_OPSET
from torch.utils import _pytree as pytree

from spdify.errors import ExportError
from spdify.exporting.detections import are_detections
from spdify.exporting.examples import tensors_in
from spdify.exporting.program import reason
from spdify.exporting.weights import WeightsError, distinct, with_weights
from spdify.graph.structure import detached_copy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.exporting.examples import Example

ROOT = "network"
EXPORTER = "TorchScript exporter of torch.onnx"


class _Flat(nn.Module):
    """A network with tensors in and tensors out, without names or nesting."""

    def __init__(self, network: nn.Module, example: Example) -> None:
        super().__init__()
        self.network = network
        self._spec = pytree.tree_structure((example.args, example.kwargs))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        args, kwargs = pytree.tree_unflatten(tensors, self._spec)
        return tuple(tensors_in(self.network(*args, **kwargs)))


def depends_on_data(fault: BaseException) -> bool:
    """Whether torch.export failed since the network's own code branches on what it computes."""
    link: BaseException | None = fault
    while link is not None:
        if isinstance(link, GuardOnDataDependentSymNode):
            return True
        link = link.__cause__
    return False


def require_detector(model: nn.Module, example: Example) -> None:
    """Insist that a network is of the kind that is made for this exporter, and whose choices can be compared.

    Of any other, the file would keep the branch that one input takes, and hardly a comparison would show it.

    Raises:
        ExportError: It does not give boxes, labels and scores.
    """
    if not are_detections(output_names(model, example)):
        raise ExportError(f"the {EXPORTER} would keep only the branch that one input takes")


def export_scripted(
    model: nn.Module, example: Example, *, opset: int, weights: Mapping[str, Tensor] | None = None
) -> ONNXProgram:
    """Write a network down as it runs, in memory, not optimised; initializers are those of its state dict.

    Args:
        model: In eval mode, float32, on the CPU; left as it was.
        example: Inputs; the file takes these sizes.
        opset: Version of the operator set.
        weights: Full state dict to run with, under which the network does all that it can: finds something. Its own
            where None. The program holds its own.

    Raises:
        ExportError: The exporter does not write this opset, or fails on the network; or the program does not hold the
            network's tensors.
    """
    if opset > NEWEST_OPSET:
        raise ExportError(f"the {EXPORTER} writes opset {NEWEST_OPSET} at most, asked for is {opset}")
    own = model.state_dict()
    twin = detached_copy(model).eval()
    twin.load_state_dict(distinct(weights or own))
    flat = _Flat(twin, example).eval()
    try:
        names = output_names(twin, example)
        # It prints the graph so far when it fails.
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            path = Path(scratch) / "scripted.onnx"
            torch.onnx.export(
                flat, tuple(example.tensors), str(path), dynamo=False, opset_version=opset, verbose=False,
                input_names=input_names(model, example), output_names=names,
                # No folding, neither of constants nor of norms: initializers are the state dict's.
                do_constant_folding=False, training=TrainingMode.PRESERVE,
            )  # fmt: skip
            written = ir.load(path)
            ir.external_data.load_to_model(written)
    except Exception as fault:
        # Whatever the model's code and the exporter may raise.
        raise ExportError(f"the {EXPORTER} fails: {reason(fault)}") from fault
    for name, value in list(written.graph.initializers.items()):
        value.name = name.removeprefix(f"{ROOT}.")
    try:
        return with_weights(ONNXProgram(written, None), twin, own)
    except WeightsError as fault:
        raise ExportError(f"the {EXPORTER} does not keep the weights apart: {fault}") from fault


def input_names(model: nn.Module, example: Example) -> list[str]:
    """Give the forward pass's own names of its inputs; one that holds several tensors numbers them."""
    bound: dict[Any, Any]
    try:
        bound = inspect.signature(model.forward).bind(*example.args, **example.kwargs).arguments
    except (TypeError, ValueError):
        bound = dict(enumerate(example.args)) | example.kwargs
    return _names(bound)


def output_names(model: nn.Module, example: Example) -> list[str]:
    """Run a network and name its outputs by the keys of its dicts, or by their places."""
    with torch.no_grad():
        return _names(model(*example.args, **example.kwargs))


def _names(tree: Any) -> list[str]:  # noqa: ANN401 - tensors, however nested
    """Name each tensor by the last key on the way to it; by the whole way where that is not its own."""
    paths = [path for path, leaf in pytree.tree_flatten_with_path(tree)[0] if isinstance(leaf, Tensor)]
    ways = [[str(getattr(key, "key", getattr(key, "idx", key))) for key in path] for path in paths]
    last = [next((part for part in reversed(way) if not part.isdigit()), "") for way in ways]
    if all(last) and len(set(last)) == len(last):
        return last
    return ["_".join(["output", *way]) for way in ways]
