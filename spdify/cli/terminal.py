"""What the terminal is told: results on stdout, progress and faults on stderr."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from spdify.errors import OutputError, encodable, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.status import Status

    from spdify.pipeline.progress import Progress
    from spdify.records import EpochResult

OTHER_PLACE = "Free some space, or send it elsewhere."
PLAIN_WIDTH = 160  # columns where there is no terminal: rows stay whole in logs and pipes


@dataclass
class Settings:
    """How much is said."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


SETTINGS = Settings()


class Stream(io.TextIOWrapper):
    """A standard stream. Once it cannot be written, the rest goes nowhere; where it is for results, that is a fault."""

    def __init__(self, stream: io.TextIOWrapper, *, results: bool) -> None:
        """Take the place of a stream."""
        encoding, by_line, through = stream.encoding, stream.line_buffering, stream.write_through
        # An arrow that a narrow encoding lacks is no reason to fail at the last step; JSON reads \u2192 all the same.
        super().__init__(stream.detach(), encoding, "backslashreplace", line_buffering=by_line, write_through=through)
        self._results, self._lost = results, 0

    def write(self, text: str) -> int:
        """Write a text."""
        if self._lost and self._results:  # whoever met it first may only have been trying
            raise _cannot_write(self._lost)
        with self._told():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Have all written that was given."""
        with self._told():
            super().flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # the reader has what it wanted: typer ends the command
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # also for what lies in the buffer
            os.close(nowhere)
            self._lost = error.errno or errno.EIO
            if self._results:
                raise _cannot_write(self._lost) from error


def _cannot_write(number: int) -> OutputError:
    return OutputError(f"cannot write to stdout: {os.strerror(number)}", hint=OTHER_PLACE)


def take_streams() -> None:
    """Put streams in place that no closed or full output ends in a traceback with."""
    # A file that is opened later must not become stdout: whatever prints would write into it.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - the number of stderr
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end
        elif isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):  # else it is somebody's
            taken = Stream(stream, results=name == "stdout")
            setattr(sys, name, taken)
            setattr(sys, f"__{name}__", taken)


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


def json_text(value: object) -> str:
    """Give a record, or a dict of records, as JSON; what JSON has no number for (infinity) is null."""
    from pydantic_core import to_json

    return to_json(value, indent=2, inf_nan_mode="null").decode()


def print_json(value: object) -> None:
    """Print JSON on stdout and nothing else; of texts in a dict, paths for example, what is no UTF-8 is replaced."""
    if isinstance(value, dict):
        value = {key: encodable(item) if isinstance(item, str) else item for key, item in value.items()}
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


SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def training_progress() -> Iterator[Progress]:
    """Give what is told how a training goes: a status on a terminal, else a line per epoch and one per 30 seconds.

    Whatever is printed meanwhile goes to stderr: stdout is for results. In a run of several processes, only the first
    one speaks.
    """
    from spdify.pipeline.progress import Progress

    console = error_console()
    silent = SETTINGS.quiet or os.environ.get("RANK", "0") != "0"
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        status: Status | None = None
        if not silent and console.is_terminal:
            status = stack.enter_context(console.status("loading PyTorch"))
        teller = _Teller(console, status, silent=silent)
        yield Progress(step=teller.step, batch=teller.batch, epoch=teller.epoch, note=teller.note)


class _Teller:
    """Writes progress to a console."""

    def __init__(self, console: Console, status: Status | None, *, silent: bool) -> None:
        self._console, self._status, self._silent = console, status, silent
        self._began = self._last = time.monotonic()

    def step(self, words: str) -> None:
        if self._status is not None:
            self._status.update(escape(words))
        elif SETTINGS.verbose:
            self._line(words)

    def batch(self, epoch: int, epochs: int, step: int, steps: int, loss: float) -> None:
        words = f"epoch {epoch} of {epochs}, step {step} of {steps}, loss {loss:.4f}"
        if self._status is not None:
            self._status.update(words)
        elif time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._line(words)

    def epoch(self, result: EpochResult, epochs: int) -> None:
        found = result.validation
        measured = f", validation top-1 {found.top1:.2%}, loss {found.loss:.4f}" if found else ""
        self._line(
            f"epoch {result.epoch} of {epochs}: loss {result.train_loss:.4f}{measured}, "
            f"{result.images_per_second:.0f} images/s"
        )

    def note(self, words: str) -> None:
        self._line(f"note: {words}")

    def _line(self, words: str) -> None:
        self._last = time.monotonic()
        if not self._silent:
            self._console.print(printable(f"{self._last - self._began:6.1f} s  {words}"), markup=False, soft_wrap=True)
