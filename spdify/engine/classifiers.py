"""Classifiers with another number of outputs: found, planned, replaced."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.errors import PlanError, RefusedError, TraceError
from spdify.graph import fingerprint
from spdify.graph.structure import fake_copy, fake_inputs
from spdify.records import HeadChange, Plan
from spdify.rewrites.drawing import drawn_like

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spdify.records import Inputs

LAYERS = (nn.Linear, nn.Conv2d)
COUNTS = ("out_features", "out_channels")
NAME = "classifier"
BATCH = 2
AS_PLANNED = "The model, and its weights, must be those that the plan was made for."


def plan_classifier(model: nn.Module, inputs: Inputs, classes: int, *, seed: int = 0) -> Plan | None:
    """Plan a new classifier, where the model has another number of outputs.

    The layers are those that timm names in the model's configuration; else the linear layer or convolution that was
    called last with as many outputs as the model has. A model that gives several outputs in train mode (auxiliary
    classifiers) has one for each, if the outputs are what these layers give.

    Args:
        model: Not changed; its outputs are (N, classes).
        inputs: Example inputs.
        classes: Number of outputs wanted.
        seed: Of the new layers' weights.

    Returns:
        None where the model has that number already.

    Raises:
        RefusedError: The model gives no class scores, or the layers that make them are not found.
    """
    count = class_count(model, inputs)
    if count == classes:
        return None
    paths = _named_by_timm(model, count) or _last_called(model, inputs, count)
    heads = tuple(HeadChange(path=path, before=count, after=classes, seed=seed) for path in paths)
    return Plan(rulebook=NAME, fingerprint=fingerprint(model), inputs=inputs, heads=heads, decisions=())


def class_count(model: nn.Module, inputs: Inputs) -> int:
    """Give the number of class scores in eval mode.

    Raises:
        RefusedError: The output is no (N, classes) tensor.
    """
    output, _ = _run(model, inputs, train=False)
    if not isinstance(output, Tensor) or output.ndim != 2:  # noqa: PLR2004 - (N, classes)
        found = f"a tensor of {output.ndim} axes" if isinstance(output, Tensor) else type(output).__name__
        raise RefusedError(
            f"cannot classify with {type(model).__name__}: expected outputs (N, classes), got {found}",
            hint="Fine-tuning and evaluation are for image classifiers.",
        )
    return int(output.shape[1])


def replace_heads(model: nn.Module, plan: Plan) -> None:
    """Give classifiers the outputs that a plan asks for, in place, their tensors on the meta device.

    Raises:
        PlanError: A classifier is not in the model, or has another number of outputs.
    """
    for head in plan.heads:
        try:
            module = model.get_submodule(head.path)
            weight = module.get_parameter("weight")
        except AttributeError:
            raise PlanError(
                f"cannot apply the plan: there is no classifier at {head.path!r}", hint=AS_PLANNED
            ) from None
        if not isinstance(module, LAYERS) or weight.shape[0] != head.before:
            raise PlanError(
                f"cannot apply the plan at {head.path}: expected a layer with {head.before} outputs", hint=AS_PLANNED
            )
        for name, tensor in tuple(module.named_parameters(recurse=False)):
            shape = (head.after, *tensor.shape[1:])
            module.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=tensor.dtype, device="meta")))
        for name in COUNTS:
            if hasattr(module, name):
                setattr(module, name, head.after)
        for around in _around(model, head.path):
            if getattr(around, "num_classes", None) == head.before:
                around.num_classes = head.after  # type: ignore[assignment]  # what timm's models call it


def head_state(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Do the same to a state dict: weights as a fresh layer draws them, biases of zero.

    Raises:
        PlanError: It has nothing of a classifier.
    """
    new = dict(state)
    for head in plan.heads:
        names = [name for name in state if name.rpartition(".")[0] == head.path]
        if not names:
            raise PlanError(f"cannot map {head.path}: the state dict has no tensors of it", hint=AS_PLANNED)
        for name in names:
            shape = (head.after, *state[name].shape[1:])
            fresh = state[name].new_zeros(shape)
            seed = head.seed + zlib.crc32(name.encode())
            new[name] = drawn_like(fresh, seed=seed) if len(shape) > 1 else fresh
    return new


def _named_by_timm(model: nn.Module, count: int) -> list[str]:
    """Give the layers that timm's configuration names, where they are what it says."""
    config = getattr(model, "pretrained_cfg", None)
    named = config.get("classifier") if isinstance(config, dict) else None
    paths = [named] if isinstance(named, str) else list(named or ())
    modules = dict(model.named_modules())
    fits = all(isinstance(module := modules.get(path), LAYERS) and module.weight.shape[0] == count for path in paths)
    return paths if fits else []


def _last_called(model: nn.Module, inputs: Inputs, count: int) -> list[str]:
    """Give the layer that makes the outputs; several where there are several outputs in train mode."""
    _, called = _run(model, inputs, train=False)
    candidates = [path for path, output in called if _channels(output) == count]
    outputs, in_training = _run(model, inputs, train=True)
    several = list(_tensors(outputs))
    if len(several) > 1:
        made = {id(output): path for path, output in in_training if _channels(output) == count}
        candidates = [made[id(output)] for output in several if id(output) in made]
        if len(candidates) == len(several):
            return candidates
    elif candidates:
        return candidates[-1:]
    raise RefusedError(
        f"cannot change the classes of {type(model).__name__}: the layer that makes its {count} outputs was not found",
        hint="Build the model for the classes of the data (--num-classes, or an argument of your factory).",
    )


def _channels(output: object) -> int | None:
    return int(output.shape[1]) if isinstance(output, Tensor) and output.ndim > 1 else None


def _run(model: nn.Module, inputs: Inputs, *, train: bool) -> tuple[Any, list[tuple[str, object]]]:
    """Run a copy with fake tensors; give its output, and what each layer gave, in order."""
    copied, mode = fake_copy(model)
    copied.train(train)
    called: list[tuple[str, object]] = []
    for path, module in copied.named_modules():
        if isinstance(module, LAYERS):
            module.register_forward_hook(lambda _m, _i, output, path=path: called.append((path, output)))
    args, kwargs = fake_inputs(inputs, mode, batch=BATCH)
    try:
        with mode, torch.no_grad():
            return copied(*args, **kwargs), called
    except Exception as error:
        # Whatever the model's own code raises.
        shapes = ", ".join("x".join(map(str, spec.shape[1:])) for spec in (*inputs.args, *inputs.kwargs.values()))
        raise TraceError(
            f"cannot run {type(model).__name__} on {shapes} inputs: {type(error).__name__}: {error}",
            hint="Give a size that it takes: --input-size C,H,W.",
        ) from error


def _tensors(outputs: object) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (tuple, list)):
        for item in outputs:
            yield from _tensors(item)
    elif isinstance(outputs, dict):
        for item in outputs.values():
            yield from _tensors(item)


def _around(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """Give the modules around a path, the model first."""
    module = model
    yield module
    for name in path.split(".")[:-1]:
        module = module.get_submodule(name)
        yield module
