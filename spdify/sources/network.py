"""Fetching weights: offline it fails in seconds, and the message says how to go on."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from huggingface_hub import constants
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

from spdify.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE_SECONDS = 5.0
"""How long the Hub may take to answer before it counts as unreachable."""

STALL_SECONDS = 15.0
"""How long a plain download may stand still."""

OFFLINE_HINT = (
    "Fetch the weights on a machine with a network and pass --checkpoint FILE, "
    "or leave out --pretrained for random weights."
)


@contextmanager
def downloading(what: str, *, hub: bool, hint: str = OFFLINE_HINT) -> Iterator[None]:
    """Run a download so that a missing network is told quickly and in words.

    `huggingface_hub` tries an unreachable host again for 23 s per file, and timm asks for two files. So the Hub is
    asked once before; if it does not answer, its own offline mode holds inside the block: cached files still serve,
    and others fail at once.

    Args:
        what: What is fetched, for the message: `weights for resnet50`.
        hub: Whether the Hugging Face Hub serves it.
        hint: What to do when it cannot be fetched.

    Raises:
        SourceError: It could not be fetched.
    """
    stall = socket.getdefaulttimeout()
    offline = constants.HF_HUB_OFFLINE
    fault = _hub_fault() if hub and not offline else None
    constants.HF_HUB_OFFLINE = offline or fault is not None
    # torch.hub opens its connections without any limit.
    socket.setdefaulttimeout(STALL_SECONDS if stall is None else stall)
    try:
        yield
    except Exception as error:
        if not is_download_error(error):
            raise
        # With the fault known, the error only tells of the offline mode that was set here.
        raise SourceError(f"Cannot fetch {what}: {fault or _short(error)}.", hint=hint) from error
    finally:
        socket.setdefaulttimeout(stall)
        constants.HF_HUB_OFFLINE = offline


def is_download_error(error: BaseException) -> bool:
    """Whether `error`, or what it came from, is about the network or the server."""
    # OSError covers URLError, ConnectionError, time-outs, the errors of requests and of huggingface_hub; the HTTP
    # client of its newer releases has a tree of its own, under names that change with it.
    return any(
        isinstance(e, OSError) or type(e).__module__.split(".")[0].startswith(("http", "huggingface_hub"))
        for e in _chain(error)
    )


def _hub_fault() -> str | None:
    """Ask the Hub once, and give the reason where it does not answer."""
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:
        if not is_download_error(error):
            raise
        return f"{constants.ENDPOINT} does not answer ({_short(error)})"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _short(error: BaseException) -> str:
    """Give the first line of the deepest cause that still names an address, else of the error itself."""
    lines = [(type(e).__name__, str(e).strip().splitlines()) for e in _chain(error)]
    told = [f"{name}: {text[0].rstrip('.')}" for name, text in lines if text]
    return next((t for t in told if "://" in t), told[0] if told else type(error).__name__)
