"""The folder of a run: lines that are whole or not there, no name twice, one writer at a time."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from spdify.bundle.locking import LOCK, locked
from spdify.bundle.places import STAGE, write_text
from spdify.errors import BundleError, UsageError, plain_bytes, require_plain
from spdify.zoo.records import OnnxFamilyRecord, RunRecord, SessionRecord, ZooRecord

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from spdify.records import Record

RESULTS, ONNX, SESSIONS, RUN = "results.jsonl", "onnx.jsonl", "sessions.jsonl", "run.json"
MAX_BYTES = 2**28  # of a file: some 1,500 models have 3 MB
R = TypeVar("R", ZooRecord, OnnxFamilyRecord, SessionRecord)


class RunFolder:
    """A folder that holds a run."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is read or written yet."""
        self.path = path

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for this process alone, as `spdify.bundle.locking.locked` does."""
        return locked(self.path)

    def begin(self, run: RunRecord, *, resume: bool) -> None:
        """Start a run, or make sure that the one to be resumed is the same.

        Raises:
            UsageError: The folder is not empty, or holds another run.
            BundleError: The folder cannot be read or written.
        """
        file = self.path / RUN
        if not file.exists():
            if stray := sorted(p.name for p in self.path.iterdir() if p.name != LOCK and not p.name.startswith(STAGE)):
                raise UsageError(
                    f"cannot sweep into {self.path}: it is not empty ({', '.join(stray[:3])}) and holds no run",
                    hint="Give a new folder with -o.",
                )
            write_text(file, run.model_dump_json(indent=2) + "\n", overwrite=False)
            return
        if not resume:
            raise UsageError(
                f"cannot sweep into {self.path}: it holds a run already",
                hint="Go on with it by --resume, or give another folder with -o.",
            )
        if difference := _first_difference(self.run(), run):
            raise UsageError(
                f"cannot resume the run in {self.path}: {difference}",
                hint="Resume with the settings and versions it was started with, or start anew in another folder.",
            )

    def run(self) -> RunRecord:
        """Read `run.json`.

        Raises:
            BundleError: There is none, or it cannot be read.
        """
        try:
            return RunRecord.model_validate_json(self._content(RUN))
        except (OSError, ValidationError) as error:
            raise BundleError(
                f"cannot read the run in {self.path}: {_words(error)}", hint="`spdify zoo run -o DIR` makes one."
            ) from error

    def append(self, name: str, record: Record) -> None:
        """Add one line, on the disk when this returns; a crash leaves all of it, or a torn end that `read` drops."""
        line = record.model_dump_json().encode() + b"\n"
        try:
            file = self._opened(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            try:
                if (written := os.write(file, line)) < len(line):
                    os.truncate(file, os.fstat(file).st_size - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise BundleError(f"cannot write {self.path / name}: {_words(error)}") from error

    def mend(self, name: str) -> None:
        """Cut off a line that a killed process has left torn; only for the writer.

        Raises:
            BundleError: The file is a link or no plain file, or cannot be read or written.
        """
        if not os.path.lexists(self.path / name):
            return
        try:
            content = self._content(name)
            whole = content.rfind(b"\n") + 1
            file = self._opened(name, os.O_WRONLY)
            try:
                if whole < len(content):
                    os.truncate(file, whole)
            finally:
                os.close(file)
        except OSError as error:
            raise BundleError(f"cannot write {self.path / name}: {_words(error)}") from error

    def read(self, name: str, kind: type[R]) -> list[R]:
        """Read the whole lines of a file; a torn last one is not there.

        Raises:
            BundleError: The file cannot be read, or a line is no such record.
        """
        file = self.path / name
        if not file.exists():
            return []
        try:
            *lines, _torn = self._content(name).split(b"\n")
        except OSError as error:
            raise BundleError(f"cannot read {file}: {_words(error)}") from error
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(kind.model_validate_json(line))
            except ValidationError as error:
                raise BundleError(f"cannot read {file}, line {number}: {_words(error)}") from error
        return records

    def results(self) -> list[ZooRecord]:
        """Read what is known of each model, sorted by name."""
        return sorted(self.read(RESULTS, ZooRecord), key=lambda record: record.name)

    def exports(self) -> list[OnnxFamilyRecord]:
        """Read what was exported, sorted by name."""
        return sorted(self.read(ONNX, OnnxFamilyRecord), key=lambda record: record.name)

    def _content(self, name: str) -> bytes:
        return plain_bytes(self.path / name, MAX_BYTES)

    def _opened(self, name: str, flags: int) -> int:
        """Open a file of the folder to write to it: no pipe, and nothing that a link leads to."""
        file = self.path / name
        if file.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
        if file.exists():
            require_plain(file)
        return os.open(file, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)


def _first_difference(old: RunRecord, new: RunRecord) -> str:
    """Say in words where two runs differ first; empty where they do not."""
    pairs = {
        **{key: (value, getattr(new.settings, key)) for key, value in old.settings},
        **{key: (old.versions.get(key), new.versions.get(key)) for key in old.versions | new.versions},
        "the list of models": (old.names_sha256, new.names_sha256),
    }
    return next((f"{key} was {a!r} and is now {b!r}" for key, (a, b) in pairs.items() if a != b), "")


def _words(error: OSError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    return error.strerror or str(error)
