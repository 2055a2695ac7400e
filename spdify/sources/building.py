"""From a spec to a model: the one door to all kinds of sources."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from spdify.errors import SourceError, UsageError, encodable
from spdify.sources.checkpoint import load_checkpoint_file
from spdify.sources.code_source import build_code
from spdify.sources.options import BuildOptions
from spdify.sources.quantized import require_floats
from spdify.sources.reparameterizing import fold_branches_of
from spdify.sources.spec import ParsedSpec, parse_spec
from spdify.sources.structure import check_rebuilds, has_unsaved_tensors, hollow_out, is_hollow, on_meta
from spdify.sources.timm_source import build_timm
from spdify.sources.torchvision_source import build_torchvision
from spdify.sources.ultralytics_source import build_ultralytics
from spdify.sources.weights import assign_weights, fits, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.sources.loaded_model import LoadedModel

_BUILDERS: dict[str, Callable[[ParsedSpec, BuildOptions], LoadedModel]] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
    "ultralytics": build_ultralytics,
    "hf-hub": build_timm,
    "local-dir": build_timm,
    "code": build_code,
}


def build(spec: str, options: BuildOptions | None = None) -> LoadedModel:
    """Build a model and give it its weights.

    The caller's random state is left as it is.

    Args:
        spec: For example `resnet50`, `torchvision:resnet18`, `path/to/file.py:factory`.
        options: Weights, classes, channels, input size and so on; the model's own by default.

    Returns:
        The model in eval mode on the CPU, with the record of its source and its example inputs.

    Raises:
        UsageError: The spec has no known form, or the options do not fit.
        SourceError: The model cannot be found, built or given its weights.
        RefusedError: The model is quantized already.
        CheckpointError: The checkpoint cannot be read, or does not fit.
    """
    options = options or BuildOptions()
    parsed = parse_spec(spec)
    if options.trust_checkpoint and not (parsed.kind == "ultralytics" and parsed.is_file):
        raise UsageError(
            f"Cannot use --trust-checkpoint for {parsed.canonical}: nothing that runs code is read for it.",
            hint="It is for ultralytics:FILE.pt.",
        )
    loaded = _build(parsed, options) if options.checkpoint is None else _build_for(options.checkpoint, parsed, options)
    if options.reparameterize:
        reparameterize(loaded)
    return loaded


def _build(parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model with the weights that its constructor gives."""
    loaded = _BUILDERS[parsed.kind](parsed, options)
    require_floats(loaded.model, loaded.source.spec)
    if _may_rebuild_otherwise(parsed, options):
        check_rebuilds(loaded.model, loaded.source)
    return loaded


def _build_for(checkpoint: str | Path, parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model and give it a checkpoint's weights; where they fit, it never has others in memory beside them."""
    loaded, where = _build_hollow(parsed, options), f"the checkpoint {checkpoint}"
    state = load_checkpoint_file(checkpoint)
    if is_hollow(loaded.model) and fits(loaded.model, state):
        assign_weights(loaded.model, state, where=where)
    else:  # what translates names may look at weights
        loaded = _build(parsed, options) if is_hollow(loaded.model) else loaded
        load_weights(loaded.model, state, where=where)
    loaded.source = loaded.source.model_copy(update={"weights": encodable(Path(checkpoint).name)})
    return loaded


def _build_hollow(parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model, its state dict on the meta device where that is safe."""
    if parsed.kind not in {"timm", "torchvision"}:  # own code may hold its tensors anywhere
        return _build(parsed, options)
    with suppress(SourceError), on_meta():  # the attempt on the CPU tells whether it was the device
        loaded = _build(parsed, options)
        if not has_unsaved_tensors(loaded.model):
            return loaded
    loaded = _build(parsed, options)
    hollow_out(loaded.model)
    return loaded


def reparameterize(loaded: LoadedModel) -> None:
    """Fold the training-time branches of a model that has its weights, and record it.

    Raises:
        UsageError: There is nothing to re-parameterise in it.
        SourceError: timm cannot do it.
    """
    loaded.model = fold_branches_of(loaded.model, name=loaded.source.spec)
    loaded.source = loaded.source.model_copy(update={"reparameterized": True})


def _may_rebuild_otherwise(parsed: ParsedSpec, options: BuildOptions) -> bool:
    """Whether something besides the recorded arguments has shaped the model."""
    return parsed.kind in {"hf-hub", "local-dir"} or (parsed.kind == "torchvision" and options.pretrained)
