"""From whatever names a model to the model, with all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import timm
from torch import nn

from spdify.bundle import is_bundle, read_record
from spdify.errors import BundleError, UsageError
from spdify.pipeline.loading import load
from spdify.records import Inputs, InputSpec
from spdify.sources import BuildArguments, BuildOptions, describe_inputs, from_module, reparameterize
from spdify.sources import build as build_source

if TYPE_CHECKING:
    from spdify.records import BundleRecord, Plan, Source
    from spdify.sources.example import Example

FOLDER_HINT = "A timm model goes by its name (timm:NAME), a folder that timm wrote by local-dir:FOLDER."
_ANY_SIZE = (1, 1)


@dataclass
class Opened:
    """A model that is ready to be looked at.

    Attributes:
        model: The network; of an object of the caller's, a copy.
        source: Where it came from.
        inputs: Example inputs at batch 1.
        plans: Plans that were applied to it before (a bundle's).
        command: Command lines that led to it, one per line (a bundle's).
        record: Of a bundle, what it says; None for anything else.
    """

    model: nn.Module
    source: Source
    inputs: Inputs
    plans: tuple[Plan, ...] = ()
    command: str = ""
    record: BundleRecord | None = None


def open_model(
    model: str | Path | nn.Module,
    *,
    example_input: Example | None = None,
    code: str | None = None,
    **build: Unpack[BuildArguments],
) -> Opened:
    """Open a source, a bundle or a module.

    Args:
        model: A source (`resnet50`, `tv:resnet18`, `net.py:factory` …), a bundle's folder, or a module.
        example_input: Tensors that the model takes; needed for modules, and instead of `input_size` for others.
        code: For a bundle of somebody's own network, the source that builds the original: `net.py:factory`.
        **build: How to build a source: `pretrained`, `checkpoint`, `num_classes`, `in_chans`, `model_kwargs`,
            `input_size` (C, H, W), `seed` and `reparameterize`, as `spdify.sources.BuildOptions` describes them.

    Raises:
        SourceError: The model cannot be found or built.
        BundleError: The bundle cannot be read.
        UsageError: The inputs are not known, or the name means two things.
    """
    options = _options(build)
    inputs = None if example_input is None else describe_inputs(example_input)
    if isinstance(model, nn.Module):
        return _open_module(model, options, inputs)
    if is_bundle(model):
        _require_one_meaning(model)
        return _open_bundle(Path(model), options, inputs, code)
    if is_bundle(Path(model) / "best"):
        raise UsageError(f"cannot open {model}: it is a training run", hint=f"Name one of its bundles: {model}/best.")
    if isinstance(model, Path) or _is_path_of_folder(model):
        raise BundleError(f"cannot open {model}: it is no folder that spdify wrote", hint=FOLDER_HINT)
    if code is not None:
        raise UsageError(
            f"cannot use --code with {model}: it is not a bundle", hint="Give the code as the model itself."
        )
    loaded = build_source(model, options)
    return Opened(loaded.model, loaded.source, inputs or loaded.inputs)


def _options(build: BuildArguments) -> BuildOptions:
    """Put keyword arguments together; unknown ones get a message that helps."""
    others = ("example_input", "rules", "overrides", "budget", "prefer", "code", "proof", "strict")
    known = [*BuildArguments.__annotations__, *others]
    if unknown := sorted(set(build) - BuildArguments.__annotations__.keys()):
        near = get_close_matches(unknown[0], known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
        raise UsageError(f"cannot use the argument {unknown[0]}: there is none of that name", hint=hint)
    return BuildOptions(**build)


def _open_module(module: nn.Module, options: BuildOptions, inputs: Inputs | None) -> Opened:
    """Take a module; it has its weights and classes already."""
    own = BuildOptions(input_size=options.input_size, seed=options.seed, reparameterize=options.reparameterize)
    if options != own:
        raise UsageError(
            f"cannot build {type(module).__name__} anew: it is a module, with its own weights and classes",
            hint="Leave out pretrained, checkpoint, num_classes, in_chans and model_kwargs.",
        )
    if inputs is None and options.input_size is not None:
        inputs = Inputs(args=(InputSpec(shape=(1, *options.input_size)),))
    loaded = from_module(module, inputs=inputs)
    if options.reparameterize:
        reparameterize(loaded)
    return Opened(loaded.model, loaded.source, loaded.inputs)


def _require_one_meaning(model: str | Path) -> None:
    """Refuse a name that is both a bundle's folder here and a model of timm: either could be meant."""
    if isinstance(model, str) and Path(model).name == model and timm.is_model(model.partition(".")[0]):
        raise UsageError(
            f"cannot tell what {model} is: a folder here that spdify wrote, and a model of timm",
            hint=f"Write ./{model} for the folder, timm:{model} for the model.",
        )


def _is_path_of_folder(model: str) -> bool:
    """Whether a source is written like a path, not like a name, and is that of a folder."""
    try:
        return Path(model).name != model and Path(model).is_dir()
    except OSError:
        return False


def _open_bundle(folder: Path, options: BuildOptions, inputs: Inputs | None, code: str | None) -> Opened:
    """Load a bundle; only the input size may differ from what it was made with."""
    if options != BuildOptions(input_size=options.input_size, seed=options.seed):
        raise UsageError(
            f"cannot build {folder} anew: it is a bundle, with its own weights and classes",
            hint="Leave out --pretrained, --checkpoint, --num-classes, --in-chans, --model-kwargs and "
            "--reparameterize, or name the original.",
        )
    record = read_record(folder)
    if record.example_inputs is None:
        raise BundleError(f"cannot open {folder}: its spdify.json has no plan", hint="Convert the model again.")
    model = load(folder, model=None if code is None else build_original(code, record))
    known = inputs or _inputs(folder, record.example_inputs, options.input_size)
    return Opened(model, record.source, known, record.plans, record.command, record)


def build_original(code: str, record: BundleRecord) -> nn.Module:
    """Build the network that a bundle was made from, with the arguments that its factory had then."""
    kwargs = record.source.kwargs if record.source.kind == "code" else {}
    # What goes in is known from the plan; the size only keeps the factory's model from being asked for one.
    return build_source(code, BuildOptions(model_kwargs=kwargs, input_size=_ANY_SIZE)).model


def _inputs(folder: Path, known: Inputs, size: tuple[int, ...] | None) -> Inputs:
    """Give the inputs that a bundle was made with, at another size where one is asked for."""
    if size is None:
        return known
    if len(known.args) != 1 or known.kwargs:
        raise UsageError(
            f"cannot use --input-size with {folder}: its network does not take one input",
            hint="Leave it out, or give example_input in Python.",
        )
    return Inputs(args=(known.args[0].model_copy(update={"shape": (1, *size)}),))
