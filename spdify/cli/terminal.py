"""What the terminal is told: results on stdout, progress and faults on stderr."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN_WIDTH = 160  # columns where there is no terminal: rows stay whole in logs and pipes


@dataclass
class Settings:
    """How much is said."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


SETTINGS = Settings()


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False)


def output_console() -> Console:
    """Give the console for results."""
    return _console(stderr=False)


def error_console() -> Console:
    """Give the console for progress and faults."""
    return _console(stderr=True)


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Give a function that shows the step at hand: a spinner on a terminal, a line per step with --verbose, else nothing."""
    console = error_console()
    started = time.monotonic()

    def line(text: str) -> None:
        console.print(f"{time.monotonic() - started:6.1f} s  {text}", markup=False)

    if SETTINGS.verbose:
        yield line
    elif SETTINGS.quiet or not console.is_terminal:
        yield lambda _: None
    else:
        with console.status("starting") as status:
            yield lambda text: status.update(text)
