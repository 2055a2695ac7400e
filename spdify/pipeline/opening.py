"""From whatever names a model to the model, with all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from spdify.bundle import is_bundle, read_record
from spdify.errors import UsageError
from spdify.pipeline.loading import load
from spdify.sources import BuildOptions, build, describe_inputs, from_module

if TYPE_CHECKING:
    from spdify.records import Inputs, Plan, Source
    from spdify.sources.example import Example


@dataclass
class Opened:
    """A model that is ready to be looked at.

    Attributes:
        model: The network; for an object of the caller's, that very object.
        source: Where it came from.
        inputs: Example inputs at batch 1.
        plans: Plans that were applied to it before (a bundle's).
    """

    model: nn.Module
    source: Source
    inputs: Inputs
    plans: tuple[Plan, ...] = ()


def open_model(
    model: str | Path | nn.Module,
    *,
    options: BuildOptions | None = None,
    example_input: Example | None = None,
    code: str | None = None,
) -> Opened:
    """Open a source, a bundle or a module.

    Args:
        model: A source (`resnet50`, `tv:resnet18`, `net.py:factory` …), a bundle's folder, or a module.
        options: How to build a source.
        example_input: Tensors that the model takes; needed for modules, and instead of `input_size` for others.
        code: For a bundle of somebody's own network, the source that builds the original: `net.py:factory`.

    Raises:
        SourceError: The model cannot be found or built.
        BundleError: The bundle cannot be read.
        UsageError: The inputs are not known.
    """
    options = options or BuildOptions()
    inputs = None if example_input is None else describe_inputs(example_input)
    if isinstance(model, nn.Module):
        loaded = from_module(model, inputs=inputs)
        return Opened(loaded.model, loaded.source, loaded.inputs)
    if is_bundle(model):
        return _open_bundle(Path(model), options, inputs, code)
    if code is not None:
        raise UsageError(f"cannot use --code with {model}: it is not a bundle", hint="Give the code as the model itself.")
    loaded = build(str(model), options)
    return Opened(loaded.model, loaded.source, inputs or loaded.inputs)


def _open_bundle(folder: Path, options: BuildOptions, inputs: Inputs | None, code: str | None) -> Opened:
    """Load a bundle; only the input size may differ from what it was made with."""
    if options != BuildOptions(input_size=options.input_size, seed=options.seed):
        raise UsageError(
            f"cannot build {folder} anew: it is a bundle, with its own weights and classes",
            hint="Leave out --pretrained, --checkpoint, --num-classes, --in-chans and --model-kwargs, or convert the original.",
        )
    record = read_record(folder)
    base = build(code, BuildOptions(input_size=options.input_size)).model if code is not None else None
    model = load(folder, model=base)
    known = record.plans[-1].inputs
    if options.input_size is not None and inputs is None:
        first = known.args[0].model_copy(update={"shape": (1, *options.input_size)})
        known = known.model_copy(update={"args": (first,)})
    return Opened(model, record.source, inputs or known, record.plans)
