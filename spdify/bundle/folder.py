"""Output folders: written beside their final place and renamed at the end, so that none is ever half-written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from spdify.bundle.places import STAGE, check_place, flush, parents_of, real_path, usual_access, write_error
from spdify.bundle.reading import MAX_RECORD_BYTES, PLAN_FILE
from spdify.errors import BundleError, plain_bytes
from spdify.records import BundleRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spdify.records import Record

ANOTHER_FOLDER = "Choose another with -o DIR."


def check_output(folder: Path, *, overwrite: bool, marker: str = PLAN_FILE, kind: type[Record] = BundleRecord) -> None:
    """Make sure, before any work is done, that a folder can be written.

    Args:
        folder: The final place.
        overwrite: Whether a bundle that is there may be replaced; what spdify did not write never is.
        marker: Name of the file by which a folder of the same kind is known.
        kind: What that file holds.

    Raises:
        BundleError: It holds something, is no folder, or cannot be written.
    """
    try:
        _check(folder, real_path(folder), overwrite=overwrite, marker=marker, kind=kind)
    except OSError as error:
        raise write_error(folder, error) from error


def _check(folder: Path, real: Path, *, overwrite: bool, marker: str, kind: type[Record]) -> None:
    if real.exists() and not real.is_dir():
        raise BundleError(f"cannot write to {folder}: it is not a folder", hint=ANOTHER_FOLDER)
    if real.is_dir() and _content(real):
        if not overwrite:
            raise BundleError(
                f"cannot write to {folder}: it is not empty", hint="Choose another with -o DIR, or pass --overwrite."
            )
        if not _is_ours(real / marker, kind):
            raise BundleError(
                f"cannot replace {folder}: it is not empty, and spdify did not write it (it has no such {marker})",
                hint="--overwrite replaces only what spdify wrote. Choose another with -o DIR, or empty it yourself.",
            )
    check_place(folder, real / marker if _stays(real) else real)


def _is_ours(file: Path, kind: type[Record]) -> bool:
    """Whether a file holds what every release writes into such a record; other tools use such names too."""
    try:
        found = json.loads(plain_bytes(file, MAX_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    needed = {name for name, entry in kind.model_fields.items() if entry.is_required()}
    return isinstance(found, dict) and needed <= found.keys()


def _content(folder: Path) -> list[Path]:
    """List what a folder holds besides the stages of this and other runs."""
    return [path for path in folder.iterdir() if not path.name.startswith(STAGE)]


def _stays(folder: Path) -> bool:
    """Whether a folder cannot be exchanged for another: we stand in it, it is mounted, or its parent is not ours."""
    if not folder.is_dir():
        return False
    cwd = Path.cwd()
    return folder == cwd or folder in cwd.parents or folder.is_mount() or not os.access(folder.parent, os.W_OK)


@contextmanager
def staged_folder(
    folder: Path, *, overwrite: bool, marker: str = PLAN_FILE, kind: type[Record] = BundleRecord
) -> Iterator[Path]:
    """Give an empty folder that takes the name of `folder` when the block ends well, and is removed when it does not.

    An interrupt counts as not ending well. What was in `folder` before stays until the new one is complete. The stage
    lies beside `folder`; in it where `folder` itself has to stay (the working directory, a mounted volume).

    Args:
        folder: The final place; of a link, what it points to.
        overwrite: Whether a bundle that is there may be replaced.
        marker: Name of the file by which a folder of the same kind is known.
        kind: What that file holds.

    Yields:
        The folder to write to.

    Raises:
        BundleError: The place cannot be written, something came there meanwhile, or the disk is full.
    """
    check_output(folder, overwrite=overwrite, marker=marker, kind=kind)
    try:
        real = real_path(folder)
        with parents_of(real):
            home = real if _stays(real) else real.parent
            stage = Path(tempfile.mkdtemp(prefix=STAGE, suffix=".partial", dir=home))
            try:
                yield stage
                _settle(stage)
                # Once more: another process may have finished first.
                _check(folder, real, overwrite=overwrite, marker=marker, kind=kind)
                _put_in_place(stage, real, marker)
                flush(home)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise write_error(folder, error) from error


def _settle(stage: Path) -> None:
    """Give everything the usual access, and have it on the disk."""
    for path in (*stage.rglob("*"), stage):
        usual_access(path)
        flush(path)


def _put_in_place(stage: Path, folder: Path, marker: str) -> None:
    if stage.parent == folder:
        _move_in(stage, folder, marker)
    elif folder.is_dir() and _content(folder):
        _exchange(stage, folder)
    else:
        if folder.is_dir():
            folder.rmdir()
        # Both fail where somebody has just put something there.
        stage.rename(folder)


def _exchange(stage: Path, folder: Path) -> None:
    """Rename the stage; the old folder steps aside first and comes back if that fails."""
    aside = Path(tempfile.mkdtemp(prefix=STAGE, suffix=".old", dir=folder.parent))
    old = aside / folder.name
    try:
        folder.rename(old)
        stage.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        if folder.exists():  # else the only copy lies there
            shutil.rmtree(aside, ignore_errors=True)


def _move_in(stage: Path, folder: Path, marker: str) -> None:
    """Move the stage's files one level up; old ones step aside first and come back if that fails.

    The marker goes first and comes last: whenever the process is killed, what has it is complete.
    """
    aside = Path(tempfile.mkdtemp(prefix=STAGE, suffix=".old", dir=folder))
    old = sorted(_content(folder), key=lambda path: path.name != marker)
    new = sorted(stage.iterdir(), key=lambda path: path.name == marker)
    moves = [(path, aside / path.name) for path in old] + [(path, folder / path.name) for path in new]
    try:
        for source, target in moves:
            source.rename(target)
    except BaseException:
        for source, target in reversed(moves):
            if target.exists() and not source.exists():
                target.rename(source)
        raise
    shutil.rmtree(aside, ignore_errors=True)
