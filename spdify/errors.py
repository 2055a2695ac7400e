"""Faults that a user can cause, and the exit code each one becomes.

Every message says what could not be done and where, what was expected, what was found, and what to do.
The command line turns these into an exit code in one place (`spdify.cli.boundary`). What is quoted goes
through `printable`.
"""

from __future__ import annotations

import errno
import re
import stat
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class ExitCode(IntEnum):
    """What `spdify` leaves to the shell."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    CHECK_FAILED = 3
    NOTHING_TO_CONVERT = 4
    INTERRUPTED = 130


class SpdifyError(Exception):
    """Base of all faults that the user can mend."""

    exit_code: ClassVar[ExitCode] = ExitCode.ERROR

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the `message` (cannot X at Y: expected A, got B) and the `hint` (what to do) apart."""
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep both when a fault comes from another process."""
        return partial(type(self), hint=self.hint), (self.message,)


class UsageError(SpdifyError):
    """Arguments that do not fit together."""

    exit_code = ExitCode.USAGE


class SourceError(SpdifyError):
    """A model that cannot be found, built or given its weights."""


class CheckpointError(SourceError):
    """Weights that cannot be read, or that do not fit the model."""


class TraceError(SpdifyError):
    """A model whose forward cannot be followed."""


class RulebookError(SpdifyError):
    """A rulebook that cannot be read; the message names file, key, what was expected and what was found."""


class PlanError(SpdifyError):
    """A plan that was made for another model."""


class RefusedError(SpdifyError):
    """What was asked for is not done, for a reason: a refused site with `--strict`, a network quantized already."""


class NothingToConvertError(SpdifyError):
    """No site of the model is to be rewritten."""

    exit_code = ExitCode.NOTHING_TO_CONVERT


class CheckFailedError(SpdifyError):
    """A claim does not hold."""

    exit_code = ExitCode.CHECK_FAILED


class BundleError(SpdifyError):
    """A bundle that cannot be read or written."""


class OutputError(SpdifyError):
    """Results that cannot be written to stdout."""


class DataError(SpdifyError):
    """Images or labels that cannot be found or read, or that do not fit the model."""


class TrainingError(SpdifyError):
    """Training that cannot go on; what was saved before is good."""


class ExportError(SpdifyError):
    """A model that cannot be exported."""


def require_plain(file: Path) -> None:
    """Refuse what is there and is no plain file: a pipe or a device might never end.

    Raises:
        OSError: It is something else, or may not be looked at.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(file))


def plain_bytes(file: Path, most: int) -> bytes:
    """Read a plain file of at most so many bytes.

    Raises:
        OSError: It is something else, larger, or cannot be read.
    """
    require_plain(file)
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"expected at most {most} bytes, got more", str(file))
    return content


# Compiled here: where memory has run out, a message must not need any.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NO_TEXT = re.compile(r"[\ud800-\udfff]")
#: What PyTorch, C++ and the system say where memory has run out; the last one of a thread that cannot be had.
_NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc", "bad allocation", "Resource temporarily unavailable")
#: What oneDNN says then; of a kernel that there is none of, it says "primitive descriptor".
_NO_KERNEL = ("could not create a primitive", "could not execute a primitive")


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that there is not enough memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (str(error) in _NO_KERNEL or any(words in str(error) for words in _NO_MEMORY))
    )


def encodable(text: str) -> str:
    """Give a text that can be written as UTF-8: what stands for other bytes, in a path for example, is replaced."""
    return _NO_TEXT.sub("\ufffd", text)


def printable(text: str) -> str:
    """Give a text without control characters, without those that turn its direction, and as UTF-8.

    What comes from a file of somebody else's must neither steer a terminal nor seem to be another text.
    """
    return _STEERING.sub("\ufffd", text)
