"""The one place where faults become messages and exit codes."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from spdify.cli.signals import asked_to_end
from spdify.cli.terminal import SETTINGS, error_console
from spdify.errors import ExitCode, SpdifyError, memory_ran_out, printable

INTERRUPTED = "interrupted; nothing was left half-written"


class SpdifyGroup(TyperGroup):
    """Command group that ends with a clear message and the right exit code whatever a command raises."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as typer has it
        """Run all of it; help and version are printed outside of `invoke`."""
        try:
            return super().main(*args, **kwargs)
        except SpdifyError as error:
            _tell(error.message, error.hint)
            raise SystemExit(int(error.exit_code)) from error

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's context class has changed its home between releases
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SpdifyError as error:
            _tell(error.message, error.hint)
            raise typer.Exit(int(error.exit_code)) from error
        except KeyboardInterrupt as error:
            _tell(INTERRUPTED, "")
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from error
        except SystemExit as error:
            if (number := asked_to_end()) is None:
                raise
            raise typer.Exit(128 + number) from error  # Ray makes another code of it
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if SETTINGS.debug:
                raise
            if (number := asked_to_end()) is not None:
                _tell(INTERRUPTED, "")
                raise typer.Exit(128 + number) from error
            if memory_ran_out(error):
                _tell(
                    "cannot go on: not enough memory", "Free some, raise the limit, or take a smaller input or batch."
                )
                raise typer.Exit(int(ExitCode.ERROR)) from None  # what the traceback holds is let go
            kind = type(error).__name__
            _tell(f"spdify failed unexpectedly: {kind}: {error}", "Run again with --debug and report the traceback.")
            raise typer.Exit(int(ExitCode.ERROR)) from error


def _tell(message: str, hint: str) -> None:
    """Write a message to stderr; with --debug the traceback too."""
    console = error_console()
    if SETTINGS.debug:
        console.print_exception()
    console.print("[bold red]error:[/]", end=" ")
    console.print(printable(message), markup=False, highlight=False, soft_wrap=True)
    if hint:
        console.print(printable(hint), markup=False, highlight=False, soft_wrap=True)
