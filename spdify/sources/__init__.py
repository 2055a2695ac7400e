"""Where models come from: timm, torchvision, the Hugging Face Hub, folders, and the user's own code."""

from spdify.sources.building import build, reparameterize
from spdify.sources.checkpoint import load_checkpoint_file
from spdify.sources.code_source import from_module, stated_input_size
from spdify.sources.example import describe_inputs, example_inputs
from spdify.sources.loaded_model import LoadedModel
from spdify.sources.options import (
    BuildArguments,
    BuildOptions,
    KwargValue,
    check_input_size,
    parse_input_size,
    parse_model_kwargs,
)
from spdify.sources.reparameterizing import fold_branches
from spdify.sources.spec import ParsedSpec, parse_spec
from spdify.sources.structure import build_structure
from spdify.sources.torchvision_config import label_names
from spdify.sources.weights import assign_state, load_weights

__all__ = [
    "BuildArguments",
    "BuildOptions",
    "KwargValue",
    "LoadedModel",
    "ParsedSpec",
    "assign_state",
    "build",
    "build_structure",
    "check_input_size",
    "describe_inputs",
    "example_inputs",
    "fold_branches",
    "from_module",
    "label_names",
    "load_checkpoint_file",
    "load_weights",
    "parse_input_size",
    "parse_model_kwargs",
    "parse_spec",
    "reparameterize",
    "stated_input_size",
]
