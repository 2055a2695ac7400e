"""`python -m spdify`."""

from spdify.cli import main

main()
