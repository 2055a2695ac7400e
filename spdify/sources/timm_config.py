"""What timm knows about a model before it is built: its pretrained configuration, and whether the name exists."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torchvision
from timm.models import get_pretrained_cfg, is_model, load_model_config_from_hf

from spdify.errors import SourceError, require_plain
from spdify.sources.near_names import near_names
from spdify.sources.network import downloading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.sources.spec import ParsedSpec

_TAGS_SHOWN = 5
_MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True)
class TimmConfig:
    """A model in timm's terms.

    Attributes:
        architecture: Name of the constructor in timm's registry.
        pretrained: timm's `pretrained_cfg` as a dict; empty where timm has none.
        arguments: Constructor arguments that come with the model, from the `config.json` beside its weights.
    """

    architecture: str
    pretrained: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fixed_size(self) -> tuple[int, ...] | None:
        """Height and width that the model is built for, where it takes no others."""
        size = self.pretrained.get("input_size")
        return tuple(size[1:]) if size and self.pretrained.get("fixed_input_size") else None

    @property
    def channels(self) -> int | None:
        """Input channels of the model as published."""
        size = self.pretrained.get("input_size")
        return int(size[0]) if size else None

    @property
    def on_hub(self) -> bool:
        """Whether the weights may come from the Hugging Face Hub."""
        return bool(self.pretrained.get("hf_hub_id")) or not self.pretrained

    @property
    def weights_name(self) -> str:
        """Where the pretrained weights lie."""
        return str(self.pretrained.get("hf_hub_id") or self.pretrained.get("url") or self.architecture)

    def defaults(self) -> dict[str, Any]:
        """Give the arguments that timm takes from the configuration, so that a model is built again without it."""
        found = {
            "num_classes": self.pretrained.get("num_classes"),
            "in_chans": self.channels,
            "global_pool": self.pretrained.get("global_pool"),
            "img_size": self.fixed_size and list(self.fixed_size),
        }
        return {key: value for key, value in found.items() if value is not None} | dict(self.arguments)


def find_config(parsed: ParsedSpec) -> TimmConfig:
    """Look a model up.

    Args:
        parsed: A spec of kind `timm`, `hf-hub` or `local-dir`.

    Returns:
        What is known about it.

    Raises:
        SourceError: timm has no such model, the folder holds none, or the repository cannot be reached.
    """
    if parsed.kind == "hf-hub":
        with downloading(f"config.json of {parsed.canonical}", hub=True, hint=_HUB_HINT):
            pretrained, architecture, arguments = load_model_config_from_hf(parsed.target)
        return TimmConfig(_known(architecture, parsed.canonical), pretrained, arguments or {})
    if parsed.kind == "local-dir":
        return _folder_config(Path(parsed.target))
    return _registered_config(parsed.target)


_HUB_HINT = (
    "Check the name of the repository and the network; offline, copy the repository here and write local-dir:FOLDER."
)


def _registered_config(name: str) -> TimmConfig:
    if not is_model(name):
        raise _unknown(name)
    try:
        found = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise _unknown_tag(name) from error
    return TimmConfig(name, found.to_dict() if found else {})  # type: ignore[no-untyped-call]


def _unknown(name: str) -> SourceError:
    models = torchvision.models.list_models()
    hint = near_names(name, timm.list_models(), elsewhere=models, prefix="torchvision:")
    if name in models:
        hint = f"torchvision has it: did you mean torchvision:{name}?"
    return SourceError(f"Cannot find the model '{name}' in timm {timm.__version__}.", hint=hint)


def _unknown_tag(name: str) -> SourceError:
    architecture, _, tag = name.partition(".")
    names = timm.list_models(f"{architecture}.*", include_tags=True)
    more = len(names) - _TAGS_SHOWN
    there = ", ".join(names[:_TAGS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    hint = near_names(name, names) or f"There are {there}."
    return SourceError(f"Cannot find the weights '{tag}' of {architecture} in timm {timm.__version__}.", hint=hint)


def _folder_config(folder: Path) -> TimmConfig:
    """Read a folder as timm's `local-dir:` does; written out, since timm offers no public function for it."""
    path = folder / "config.json"
    try:
        require_plain(path)
        with path.open("rb") as stream:
            config = json.loads(stream.read(_MAX_CONFIG_BYTES))  # cut off, it is no JSON
        architecture = config["architecture"]
        # Older files hold the configuration itself, newer ones hold it under a key.
        pretrained, arguments = dict(config.get("pretrained_cfg", config)), dict(config.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"Cannot read the model folder {folder}: expected config.json with an 'architecture', "
            f"got {type(error).__name__}: {error}.",
            hint="Such a folder is what timm.models.save_for_hf writes.",
        ) from error
    if "num_classes" in config:
        pretrained["num_classes"] = config["num_classes"]
    return TimmConfig(_known(architecture, str(path)), pretrained, arguments)


def _known(architecture: str, where: str) -> str:
    if is_model(architecture):
        return architecture
    raise SourceError(
        f"Cannot build {where}: its architecture '{architecture}' is not in timm {timm.__version__}.",
        hint=near_names(architecture, timm.list_models()),
    )
