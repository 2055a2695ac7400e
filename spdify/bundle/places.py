"""Places for output: whether something can be written there, and what the system's refusals mean."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from spdify.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGE = ".spdify."  # begins the names of what is there only while something is written


def real_path(path: Path) -> Path:
    """Give the absolute path without links, `.` and `..`; it need not exist."""
    return Path(os.path.realpath(path))


def check_place(shown: Path, place: Path) -> None:
    """Make sure that something can be made at a place.

    Args:
        shown: As the user gave it.
        place: Absolute path.

    Raises:
        BundleError: Its nearest parent that exists is no folder, or cannot be written.
    """
    parent = next(p for p in place.parents if p.exists())
    if not parent.is_dir():
        raise BundleError(f"cannot write to {shown}: {parent} is not a folder", hint="Choose another place with -o.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BundleError(f"cannot write to {shown}: no permission in {parent}", hint="Choose another place with -o.")


@contextmanager
def parents_of(place: Path) -> Iterator[None]:
    """Make the folders above a place, and remove those that were made if nothing comes to lie in them."""
    missing = [p for p in place.parents if not p.exists()]  # nearest first
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def check_file(file: Path, *, overwrite: bool, option: str = "-o") -> None:
    """Make sure, before any work is done, that a text file can be written.

    Args:
        file: The file.
        overwrite: Whether it may be replaced.
        option: By which it was given, for messages.

    Raises:
        BundleError: It exists and may not be replaced, is no plain file, or its folder cannot be written.
    """
    try:
        real = real_path(file)
        if real.exists() and not real.is_file():
            raise BundleError(
                f"cannot write {file}: it is not a plain file", hint=f"Choose another with {option} FILE."
            )
        if real.exists() and not overwrite:
            raise BundleError(
                f"cannot write {file}: it exists", hint=f"Choose another with {option} FILE, or pass --overwrite."
            )
        check_place(file, real)
    except OSError as error:
        raise write_error(file, error) from error


def write_text(file: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file whole: beside its place first, then renamed.

    Raises:
        BundleError: It exists and may not be replaced, or cannot be written.
    """
    check_file(file, overwrite=overwrite)
    with staged_file(file) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def staged_file(file: Path) -> Iterator[Path]:
    """Give a path that takes the place of `file`, whole and on the disk, when the block ends well.

    Args:
        file: The final place; of a link, what it points to.

    Yields:
        The path to write to; nothing is there yet.

    Raises:
        BundleError: The place cannot be written, or the disk is full.
    """
    try:
        real = real_path(file)
        # In a folder of its own: safetensors itself begins a file by another name, which a kill would leave behind.
        with parents_of(real), tempfile.TemporaryDirectory(prefix=STAGE, dir=real.parent) as stage:
            part = Path(stage) / "part"
            yield part
            usual_access(part)
            flush(part)
            part.replace(real)
            flush(real.parent)
    except (OSError, SafetensorError) as error:
        raise write_error(file, error) from error


def usual_access(path: Path) -> None:
    """Give a file or folder the access that a new one has: mkdtemp and safetensors give the owner alone access."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def flush(path: Path) -> None:
    """Have the system put a file's content, or a folder's names, on the disk: a power cut may come next."""
    if os.name != "posix" and path.is_dir():  # Windows opens no folders, and keeps their names by itself
        return
    try:
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except PermissionError:
        if path.is_dir():  # it may be written to, and not be listed
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that cannot
            raise
    finally:
        os.close(descriptor)


def write_error(place: Path, error: Exception) -> BundleError:
    """Turn a fault of the operating system, or of safetensors, into one that says what to do."""
    # safetensors gives the system's words, and no number; numpy, which writes ONNX weights, only how far it came.
    told = ("No space left", "os error 28", " requested and ")
    full = getattr(error, "errno", None) == errno.ENOSPC or any(words in str(error) for words in told)
    if full:
        return BundleError(
            f"cannot write {place}: no space left on the device", hint="Free some, or choose another place with -o."
        )
    reason = getattr(error, "strerror", None) or str(error)
    return BundleError(f"cannot write {place}: {reason}", hint="Choose another place with -o.")
