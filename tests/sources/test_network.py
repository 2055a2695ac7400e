from __future__ import annotations

import socket
import time
import urllib.error
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import get_session

from spdify.errors import SourceError
from spdify.sources import network

if TYPE_CHECKING:
    from pathlib import Path


def ask_the_hub() -> None:
    with network.downloading("x", hub=True):
        assert constants.HF_HUB_OFFLINE
        get_session().head(constants.ENDPOINT)


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_is_told_at_once_with_its_reason() -> None:
    start = time.monotonic()

    with pytest.raises(SourceError, match=r"Cannot fetch x: http.* does not answer \(.*Name or service") as caught:
        ask_the_hub()

    assert "--checkpoint FILE" in caught.value.hint
    assert time.monotonic() - start < 10


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("fault", [None, KeyError("mine")])
def test_global_switches_are_put_back(fault: Exception | None) -> None:
    before = (constants.HF_HUB_OFFLINE, socket.getdefaulttimeout())
    try:
        with network.downloading("x", hub=True):
            assert socket.getdefaulttimeout() == network.STALL_SECONDS
            if fault:
                raise fault
    except KeyError as error:
        assert error is fault  # noqa: PT017 - other errors pass unchanged
    else:
        assert fault is None

    assert (constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()) == before


def test_the_callers_own_offline_mode_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(network, "_hub_fault", lambda: pytest.fail("asked the Hub"))

    with network.downloading("x", hub=True):
        assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE


def test_an_error_is_told_by_its_address_where_a_cause_names_one() -> None:
    def fail() -> None:
        raise RuntimeError("could not load") from ConnectionError("refused by https://host/file\nand more")

    with (
        pytest.raises(SourceError, match=r"ConnectionError: refused by https://host/file\.$"),
        network.downloading("x", hub=False, hint=""),
    ):
        fail()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (urllib.error.URLError("x"), True),
        (TimeoutError(), True),
        (RuntimeError("no"), False),
        (TypeError("unexpected keyword"), False),
    ],
)
def test_errors_of_the_network_are_known(error: Exception, expected: bool) -> None:
    assert network.is_download_error(error) is expected


def test_a_folder_of_a_fixture_is_the_cache(offline: Path) -> None:
    assert str(offline) == constants.HF_HUB_CACHE
