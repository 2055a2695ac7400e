"""Silence for libraries that write to stdout, warn and log about their own inside."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep stdout free for results, and drop warnings and log lines below CRITICAL.

    torch.export logs, as errors, what it then raises. Under debug logging everything comes through, on stderr.
    """
    if logger.isEnabledFor(logging.DEBUG):
        with contextlib.redirect_stdout(_Log()):
            yield
        return
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.ERROR))
        try:
            yield
        finally:
            logging.disable(disabled)


class _Log(io.TextIOBase):
    """Text that goes to the log, line by line."""

    def write(self, text: str) -> int:
        """Log what is not blank."""
        if text.strip():
            logger.debug("%s", text.rstrip())
        return len(text)
