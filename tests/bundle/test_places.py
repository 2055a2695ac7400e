from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from spdify.bundle import check_file, write_text
from spdify.bundle.places import write_error
from spdify.errors import BundleError


def test_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.md", "→", overwrite=False)
    assert (tmp_path / "a" / "b.md").read_text(encoding="utf-8") == "→"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.md"]


def test_exists(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("old", encoding="utf-8")
    with pytest.raises(BundleError, match="it exists"):
        write_text(tmp_path / "b.md", "new", overwrite=False)
    write_text(tmp_path / "b.md", "new", overwrite=True)
    assert (tmp_path / "b.md").read_text(encoding="utf-8") == "new"


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("name", [".", "/dev/null", "pipe"])
def test_no_plain_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="not a plain file"):
        check_file(tmp_path / name, overwrite=True)


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="file is not a folder"):
        write_text(tmp_path / "file" / "b.md", "", overwrite=False)


def test_nothing_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(BundleError, match="no space left on the device"):
        write_text(tmp_path / "a" / "b.md", "text", overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError("20736 requested and 16896 written")],
    ids=["system", "numpy"],
)
def test_whoever_says_that_the_disk_is_full(error: OSError) -> None:
    assert "no space left on the device" in write_error(Path("out"), error).message


def test_a_folder_that_may_not_be_listed_takes_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def careful(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return really(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("os.open", careful)
    write_text(tmp_path / "page.md", "text", overwrite=False)
    assert (tmp_path / "page.md").read_text() == "text"
