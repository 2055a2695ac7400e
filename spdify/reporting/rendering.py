"""From a template to a page: one file, with its style and its script in it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from spdify.errors import printable
from spdify.reporting.pictures import PAINTED, THEME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    label: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()
    caption: str = ""


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of this package.

    Args:
        template: Name of its file.
        context: All that it names; texts are escaped unless they are `Markup`.

    Raises:
        jinja2.UndefinedError: The template names something that is not there.
    """
    script, style, digest = _assets()
    return (
        _environment()
        .get_template(template)
        .render(**context, script=script, style=style, script_hash=digest, version=version("spdify"))
    )


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever a template puts out
    """Have no text of somebody else's hold control characters."""
    return type(value)(printable(value)) if isinstance(value, str) else value


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("spdify.reporting"), autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip


@cache
def _assets() -> tuple[Markup, Markup, str]:
    """Give script, style and the script's digest: no other script runs on the page, whatever a report holds."""
    script = files("spdify.reporting").joinpath("templates/page.js").read_text(encoding="utf-8")
    style = _environment().get_template("page.css").render(theme=THEME, painted=PAINTED)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(script), Markup(style), digest  # noqa: S704 - both are files of this package
