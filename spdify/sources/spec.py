"""Model specs as the user writes them: which kind of source, and what to look for there.

Nothing is imported or fetched here; a spec is only taken apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias

from spdify.errors import UsageError

SpecKind: TypeAlias = Literal["timm", "torchvision", "ultralytics", "hf-hub", "local-dir", "code"]

_PREFIXES: dict[str, SpecKind] = {
    "timm": "timm",
    "torchvision": "torchvision",
    "tv": "torchvision",
    "ultralytics": "ultralytics",
    "hf-hub": "hf-hub",
    "hf_hub": "hf-hub",
    "local-dir": "local-dir",
}

FORMS = (
    "Write a timm name (resnet50, timm:resnet50.a1_in1k), torchvision:NAME, ultralytics:NAME, hf-hub:ORG/NAME, "
    "local-dir:FOLDER, path/to/file.py:FACTORY or package.module:FACTORY."
)


@dataclass(frozen=True)
class ParsedSpec:
    """A spec in parts.

    Attributes:
        kind: Where to look.
        target: Name in the registry, repository, folder, path of a Python file, or dotted name of a module.
        factory: What to call in the file or module; empty for registry sources.
    """

    kind: SpecKind
    target: str
    factory: str = ""

    @property
    def canonical(self) -> str:
        """The spec in its one written form, `timm:resnet50`."""
        return f"{self.target}:{self.factory}" if self.kind == "code" else f"{self.kind}:{self.target}"

    @property
    def name(self) -> str:
        """Name for folders and titles: the factory, else the last part of the target."""
        return safe_name(self.factory or PurePath(self.target.partition("@")[0]).name)

    @property
    def is_file(self) -> bool:
        """Whether the code lies in a file, not in an importable module; of Ultralytics', whether the network does."""
        return self.target.endswith({"code": ".py", "ultralytics": ".pt"}.get(self.kind, "\0"))


def parse_spec(spec: str) -> ParsedSpec:
    """Take a spec apart.

    Args:
        spec: As written on the command line, for example `resnet50` or `nets/mine.py:build`.

    Returns:
        Its kind with the name or target.

    Raises:
        UsageError: The spec has none of the known forms.
    """
    spec = spec.strip()
    prefix, colon, rest = spec.partition(":")
    if not colon:
        return _bare(spec)
    if prefix in _PREFIXES:
        if not rest:
            raise UsageError(f"Cannot read the model spec '{spec}': nothing follows '{prefix}:'.", hint=FORMS)
        return ParsedSpec(_PREFIXES[prefix], rest)
    return _code(spec)


def safe_name(text: str) -> str:
    """Make `text` fit to name a folder on any system: letters, digits, `.`, `_` and `-`, no leading dot."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-") or "model"


def _bare(spec: str) -> ParsedSpec:
    if not spec:
        raise UsageError("Cannot read the model spec: it is empty.", hint=FORMS)
    if spec.endswith(".py"):
        raise UsageError(
            f"Cannot read the model spec '{spec}': a file needs the name of what builds the model.",
            hint=f"Write {spec}:FACTORY.",
        )
    if spec.endswith(".pt"):
        return ParsedSpec("ultralytics", spec)
    if "/" in spec or "\\" in spec:
        raise UsageError(
            f"Cannot read the model spec '{spec}': it names neither a registry nor a factory.",
            hint=f"Write hf-hub:{spec} for a repository on the Hugging Face Hub, local-dir:{spec} for a folder.",
        )
    return ParsedSpec("timm", spec)


def _code(spec: str) -> ParsedSpec:
    # The last colon parts the two: C:\nets\mine.py:build has one more.
    target, _, factory = spec.rpartition(":")
    is_module = all(part.isidentifier() for part in target.split("."))
    if not factory.isidentifier() or not (target.endswith(".py") or is_module):
        raise UsageError(f"Cannot read the model spec '{spec}': it has none of the known forms.", hint=FORMS)
    return ParsedSpec("code", target, factory)
