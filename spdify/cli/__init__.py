"""The command line: parses, calls the API, renders. PyTorch is imported only when a command runs."""

from spdify.cli.app import app, main

__all__ = ["app", "main"]
