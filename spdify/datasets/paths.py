"""Paths as people write them: nothing that they may be ends in a fault of Python's own."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from spdify.errors import require_plain


def home_path(path: str | Path) -> Path:
    """Give a path with `~` or `~name` in front turned into that home; it stays where there is none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises where nobody has that name


def real_name(path: Path) -> str:
    """Give the name of what a path leads to; of links that lead round, that of the path itself."""
    return Path(os.path.realpath(path)).name  # pathlib's raises where links lead round


def plain_text(file: Path, most: int) -> str:
    """Read a text file of at most so many bytes.

    Raises:
        OSError: It is larger, no plain file, or cannot be read.
        UnicodeDecodeError: It is no text.
    """
    require_plain(file)
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(file))
    return content.decode("utf-8")
