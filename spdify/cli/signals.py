"""Signals: an interrupt or a request to end reaches the command, whatever it is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_PR_SET_PDEATHSIG = 1
_SECONDS_UNTIL_AGAIN = 0.01


def take_signals() -> None:
    """Have requests to end leave nothing half-written, and none be lost."""
    # Like an interrupt, a polite request to end must not leave half a folder behind.
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored, as with nohup
        signal.signal(signal.SIGINT, _interrupt)
    if hasattr(signal, "pthread_kill"):  # not on Windows
        sys.unraisablehook = _once_more
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        # torchrun gives each process a session of its own: what kills torchrun itself does not reach them.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_came: list[int] = []


def asked_to_end() -> int | None:
    """Give the signal that has asked this process to end, if one has.

    What a signal raises in the middle of an import, libraries may catch, and fail in another way afterwards.
    """
    return _came[0] if _came else None


def _end(number: int, _: FrameType | None) -> None:
    _came.append(number)
    raise SystemExit(128 + number)


def _interrupt(number: int, _: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt


def _once_more(lost: sys.UnraisableHookArgs) -> None:
    """Raise again, a moment later, what came while a callback of the interpreter ran, which swallows all."""
    numbers = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}
    if (number := numbers.get(lost.exc_type)) is None:
        sys.__unraisablehook__(lost)
    elif not sys.is_finalizing():
        # To the main thread: the signal wakes it, and there its handler runs.
        again = threading.Timer(_SECONDS_UNTIL_AGAIN, signal.pthread_kill, [threading.main_thread().ident, number])
        again.daemon = True
        again.start()
