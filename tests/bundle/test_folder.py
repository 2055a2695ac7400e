from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from spdify.bundle import PLAN_FILE, check_output, staged_folder
from spdify.errors import BundleError
from spdify.records import BundleRecord


def write(folder: Path, text: str = "new", *, overwrite: bool = False) -> None:
    with staged_folder(folder, overwrite=overwrite) as stage:
        assert list(stage.iterdir()) == []
        (stage / PLAN_FILE).write_text(record(text), encoding="utf-8")


def record(text: str) -> str:
    needed = {name for name, entry in BundleRecord.model_fields.items() if entry.is_required()}
    return json.dumps(dict.fromkeys(needed) | {"command": text})


def content(folder: Path) -> dict[str, str]:
    texts = {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}
    return {name: json.loads(text)["command"] if text.startswith("{") else text for name, text in texts.items()}


def bundle(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / PLAN_FILE).write_text(record("old"), encoding="utf-8")
    (folder / "model.onnx").write_text("old", encoding="utf-8")
    return folder


def test_appears_when_complete(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a" / "out", overwrite=False) as stage:
        assert not (tmp_path / "a" / "out").exists()
        assert stage.parent == tmp_path / "a"
        (stage / "file").touch()
    assert content(tmp_path) == {"a/out/file": ""}


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_leaves_nothing_when_it_fails(tmp_path: Path, fault: type[BaseException]) -> None:
    with (  # noqa: PT012 - the block is what fails
        pytest.raises(fault),
        staged_folder(tmp_path / "a" / "b" / "out", overwrite=False) as stage,
    ):
        (stage / "file").touch()
        raise fault
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="says by the number of an open file which one it is")
def test_all_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, done = tmp_path / "out", []

    def note(descriptor: int) -> None:
        done.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, out.exists()))

    monkeypatch.setattr("os.fsync", note)
    with staged_folder(out, overwrite=False) as stage:
        (stage / "deep").mkdir()
        (stage / "deep" / "file").touch()
        (stage / PLAN_FILE).touch()
    assert sorted(done[:3]) == [("deep", False), ("file", False), (PLAN_FILE, False)]
    assert done[3:] == [(stage.name, False), (tmp_path.name, True)]


def test_a_name_may_be_long(tmp_path: Path) -> None:
    write(tmp_path / ("漢" * 85))
    assert content(tmp_path) == {f"{'漢' * 85}/{PLAN_FILE}": "new"}


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert content(tmp_path) == {f"out/{PLAN_FILE}": "new"}


def test_overwrite_replaces_everything(tmp_path: Path) -> None:
    write(bundle(tmp_path / "out"), overwrite=True)
    assert content(tmp_path) == {f"out/{PLAN_FILE}": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_overwrite_keeps_the_old_when_the_new_fails(tmp_path: Path, fault: type[BaseException]) -> None:
    bundle(tmp_path / "out")
    with pytest.raises(fault), staged_folder(tmp_path / "out", overwrite=True):
        raise fault
    assert content(tmp_path) == {f"out/{PLAN_FILE}": "old", "out/model.onnx": "old"}


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("inside", [False, True])
def test_overwrite_keeps_the_old_when_renaming_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, *, inside: bool
) -> None:
    out = bundle(tmp_path / "out")
    if inside:
        monkeypatch.chdir(out)
    rename, calls = Path.rename, []

    def flaky(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", flaky)
    with pytest.raises(KeyboardInterrupt):
        write(out, overwrite=True)
    monkeypatch.undo()
    kept = {k: v for k, v in content(out).items() if not k.startswith(".spdify.")}
    assert kept == {PLAN_FILE: "old", "model.onnx": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("text", ["{}", "[]", "old", '{"command": "deploy"}'])
def test_a_file_of_that_name_alone_is_not_ours(tmp_path: Path, text: str) -> None:
    folder = bundle(tmp_path / "mine")
    (folder / PLAN_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="spdify did not write it"):
        write(folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == {PLAN_FILE, "model.onnx"}


def test_whenever_it_is_killed_what_has_the_marker_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = bundle(tmp_path / "out")
    monkeypatch.chdir(out)
    rename, seen = Path.rename, []

    def look(self: Path, target: Path) -> Path:
        names = {path.name for path in out.iterdir() if path.is_file()}
        seen.append(names)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    with staged_folder(out, overwrite=True) as stage:
        for name in ("a", PLAN_FILE, "z"):
            (stage / name).touch()
    complete = [{PLAN_FILE, "model.onnx"}, {PLAN_FILE, "a", "z"}]
    assert all(names in complete or PLAN_FILE not in names for names in seen)
    assert len(seen) == 5


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    for overwrite, told in ((False, "it is not empty"), (True, "spdify did not write it")):
        with pytest.raises(BundleError, match=told):
            write(tmp_path / "thesis", overwrite=overwrite)
    assert [p.name for p in tmp_path.rglob("*")] == ["thesis", "chapter"]


def test_working_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    write(Path())
    assert Path.cwd().stat().st_ino == inode
    (tmp_path / "model.onnx").touch()
    write(Path(), "newer", overwrite=True)
    assert content(tmp_path) == {PLAN_FILE: "newer"}
    assert [path.name for path in Path().iterdir()] == [PLAN_FILE]


def test_folder_that_cannot_be_exchanged_is_written_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "volume"
    out.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self == out)
    inode = out.stat().st_ino
    write(out)
    assert out.stat().st_ino == inode
    assert content(tmp_path) == {f"volume/{PLAN_FILE}": "new"}


def test_link_stays_a_link(tmp_path: Path) -> None:
    bundle(tmp_path / "real")
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    write(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == {PLAN_FILE: "new"}


def test_dots_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    write(Path("../other/../out"))
    assert content(tmp_path) == {f"out/{PLAN_FILE}": "new"}


def test_two_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (  # noqa: PT012 - the block is what fails
        pytest.raises(BundleError, match="it is not empty"),
        staged_folder(out, overwrite=False) as stage,
    ):
        (stage / PLAN_FILE).write_text("second", encoding="utf-8")
        write(out, "first")
    assert content(tmp_path) == {f"out/{PLAN_FILE}": "first"}


def test_two_at_the_very_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if not out.exists():
            bundle(out)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(BundleError, match="cannot write"):
        write(out)
    assert content(tmp_path) == {f"out/{PLAN_FILE}": "old", "out/model.onnx": "old"}


def test_usual_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(tmp_path / "out")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "out" / PLAN_FILE).stat().st_mode) == 0o640


def test_names_too_long(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 250))  # the stage's name must not be the longer one
    with pytest.raises(BundleError, match=r"cannot write .*: File name too long"):
        check_output(tmp_path / ("x" * 300), overwrite=False)
