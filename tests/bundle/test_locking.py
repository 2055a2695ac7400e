from __future__ import annotations

import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

import pytest

from spdify.bundle.locking import LOCK, locked
from spdify.errors import BundleError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_to_a_folder_that_is_not_there_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("mine")
    with locked(tmp_path / "link"):
        assert (tmp_path / "mine" / LOCK).exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="it is not a folder"), locked(tmp_path / "file"):
        pass


def test_a_folder_with_links_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("as it was")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.csv").symlink_to("../mine")
    with pytest.raises(BundleError, match=r"results\.csv in it is a link"), locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_storage_without_locks_is_no_other_run(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UsageError, match="its storage gives no locks"), locked(tmp_path):
        pass


def test_another_run_is_waited_for(tmp_path: Path) -> None:
    other = os.open(tmp_path / LOCK, os.O_CREAT | os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another run is writing"), locked(tmp_path, patience=0):
        pass
    threading.Timer(0.5, os.close, [other]).start()
    with locked(tmp_path, patience=60):
        pass
