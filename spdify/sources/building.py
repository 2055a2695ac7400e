"""From a spec to a model: the one door to all kinds of sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spdify.sources.checkpoint import load_checkpoint_file
from spdify.sources.code_source import build_code
from spdify.sources.options import BuildOptions
from spdify.sources.quantized import require_floats
from spdify.sources.reparameterizing import fold_branches_of
from spdify.sources.spec import ParsedSpec, parse_spec
from spdify.sources.structure import check_rebuilds
from spdify.sources.timm_source import build_timm
from spdify.sources.torchvision_source import build_torchvision
from spdify.sources.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.sources.loaded_model import LoadedModel

_BUILDERS: dict[str, Callable[[ParsedSpec, BuildOptions], LoadedModel]] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
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
    loaded = _BUILDERS[parsed.kind](parsed, options)
    require_floats(loaded.model, loaded.source.spec)
    if _may_rebuild_otherwise(parsed, options):
        check_rebuilds(loaded.model, loaded.source)
    if options.checkpoint is not None:
        _load_checkpoint(loaded, options.checkpoint)
    if options.reparameterize:
        reparameterize(loaded)
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


def _load_checkpoint(loaded: LoadedModel, path: str | Path) -> None:
    load_weights(loaded.model, load_checkpoint_file(path), where=f"the checkpoint {path}")
    loaded.source = loaded.source.model_copy(update={"weights": Path(path).name})
