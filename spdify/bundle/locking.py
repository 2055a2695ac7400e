"""One writer at a time for a folder."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spdify.bundle.places import real_path
from spdify.errors import BundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
PATIENCE_SECONDS = 2.0  # workers of a killed run are still ending


@contextmanager
def locked(folder: Path, *, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold a folder for this process alone; it is made if need be, and waited for if another has it.

    Raises:
        UsageError: Another run holds it, or the system or the storage has no such locks.
        BundleError: The folder cannot be made, or holds a link.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError as error:
        raise UsageError("cannot write here: it needs file locks (Linux, macOS)") from error
    try:
        real = real_path(folder)
        real.mkdir(parents=True, exist_ok=True)  # also what a link points to
        _refuse_links(folder, real)
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise BundleError(f"cannot write to {folder}: {reason}", hint="Choose another with -o DIR.") from error
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                # The system lets go of it when the process ends, however it ends, and its workers with it.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError) as error:
                if time.monotonic() > deadline:
                    raise UsageError(
                        f"cannot write into {folder}: another run is writing there",
                        hint="Wait for it to end, or give another folder with -o.",
                    ) from error
            except OSError as error:
                raise UsageError(
                    f"cannot write into {folder}: its storage gives no locks ({error.strerror})",
                    hint="Mount it with locks (NFS: lock service; Lustre: -o flock), or give another folder with -o.",
                ) from error
            time.sleep(0.2)
        yield
    finally:
        os.close(lock)


def _refuse_links(shown: Path, folder: Path) -> None:
    """Refuse a folder that others have made so that writing its files would overwrite what is elsewhere."""
    if (link := next((path for path in folder.iterdir() if path.is_symlink()), None)) is not None:
        raise BundleError(
            f"cannot write to {shown}: {link.name} in it is a link, and spdify makes none",
            hint="What it leads to might be overwritten. Remove it, or choose another folder with -o DIR.",
        )
