"""The command line: parses, calls the API, renders. PyTorch is imported only when a command runs."""

from __future__ import annotations

import sys

from spdify.errors import ExitCode

__all__ = ["main"]


def main() -> None:
    """Run the command line; an interrupt while it is still being imported ends it like any other."""
    try:
        from spdify.cli.app import run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was left half-written\n")
        raise SystemExit(ExitCode.INTERRUPTED) from None
