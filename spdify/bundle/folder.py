"""Output folders: written beside their final place and renamed at the end, so that none is ever half-written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spdify.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Make sure, before any work is done, that a folder can be written.

    Args:
        folder: The final place.
        overwrite: Whether what is there may be replaced.

    Raises:
        BundleError: It holds something, is no folder, or its parent cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"cannot write to {folder}: it is not a folder", hint="Choose another with -o DIR.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise BundleError(
            f"cannot write to {folder}: it is not empty", hint="Choose another with -o DIR, or pass --overwrite."
        )
    parent = _existing_parent(folder)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise BundleError(f"cannot write to {folder}: no permission in {parent}", hint="Choose another with -o DIR.")


def _existing_parent(folder: Path) -> Path:
    """Give the nearest parent that exists."""
    return next(p for p in folder.absolute().parents if p.exists())


@contextmanager
def staged_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside `folder` that takes its name when the block ends well, and is removed when it does not.

    An interrupt counts as not ending well. What was in `folder` before stays until the new one is complete.

    Args:
        folder: The final place.
        overwrite: Whether what is there may be replaced.

    Yields:
        The folder to write to.

    Raises:
        BundleError: The place cannot be written, or the disk is full.
    """
    check_output(folder, overwrite=overwrite)
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield stage
        _open_up(stage)
        _put_in_place(stage, folder)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _open_up(stage: Path) -> None:
    """Give the usual permissions: mkdtemp and safetensors give the owner alone access."""
    mask = os.umask(0)
    os.umask(mask)
    stage.chmod(0o777 & ~mask)
    for path in stage.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _put_in_place(stage: Path, folder: Path) -> None:
    """Rename the stage; the old folder steps aside first and comes back if that fails."""
    if not folder.exists():
        stage.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    old = folder.rename(aside / folder.name)
    try:
        stage.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(file: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file whole: beside its place first, then renamed.

    Raises:
        BundleError: It exists and may not be replaced, or cannot be written.
    """
    if file.exists() and not overwrite:
        raise BundleError(f"cannot write {file}: it exists", hint="Choose another with -o FILE, or pass --overwrite.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.absolute().parent) as stage:
            part = Path(stage) / file.name
            part.write_text(text, encoding="utf-8")
            part.replace(file)
    except OSError as error:
        raise write_error(file, error) from error


def write_error(folder: Path, error: Exception) -> BundleError:
    """Turn a fault of the operating system into one that says what to do."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error) or "os error 28" in str(error)
    if full:
        return BundleError(f"cannot write {folder}: no space left on the device", hint="Free some, or choose another -o DIR.")
    reason = getattr(error, "strerror", None) or str(error)
    return BundleError(f"cannot write {folder}: {reason}", hint="Choose another folder with -o DIR.")
