"""What the terminal is told: results on stdout, progress and faults on stderr."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
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


def printable(text: str) -> str:
    """Give a text without control characters: what comes from a file of somebody else's must not steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "�", text)


def json_text(value: object) -> str:
    """Give a record, or a dict of records, as JSON; what JSON has no number for (infinity) is null."""
    from pydantic_core import to_json

    return to_json(value, indent=2, inf_nan_mode="null").decode()


def print_json(value: object) -> None:
    """Print JSON on stdout and nothing else."""
    typer.echo(json_text(value))


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Give a function that shows the step at hand: a spinner on a terminal, lines with --verbose, else nothing.

    Whatever a model's own code prints meanwhile goes to stderr: stdout is for results.
    """
    console = error_console()
    started = time.monotonic()

    def line(text: str) -> None:
        console.print(f"{time.monotonic() - started:6.1f} s  {text}", markup=False)

    def nothing(_: str) -> None:
        pass

    with redirect_stdout(sys.stderr):
        if SETTINGS.verbose:
            yield line
        elif SETTINGS.quiet or not console.is_terminal:
            yield nothing
        else:
            with console.status("starting") as status:
                yield status.update
