from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spdify.bundle.locking import LOCK, locked
from spdify.errors import BundleError

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
