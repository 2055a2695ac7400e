from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from spdify.bundle import PLAN_FILE, check_output, staged_folder
from spdify.errors import BundleError


def write(folder: Path, text: str = "new", *, overwrite: bool = False) -> None:
    with staged_folder(folder, overwrite=overwrite) as stage:
        assert list(stage.iterdir()) == []
        (stage / PLAN_FILE).write_text(text, encoding="utf-8")


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}


def bundle(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / PLAN_FILE).write_text("old", encoding="utf-8")
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


def killed_while_writing(folder: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom spdify.bundle import staged_folder\n"
        "with staged_folder(Path(sys.argv[1]), overwrite=False) as stage:\n"
        "    (stage / 'half').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, folder], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_of_the_same_output_goes(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "out")
    killed_while_writing(tmp_path / "out.2")
    left = {path.name for path in tmp_path.rglob("half")}
    assert left == {"half"}
    with staged_folder(tmp_path / "out", overwrite=False) as mine:
        write(tmp_path / "out", "of another process")
        assert mine.is_dir(), "whoever still writes keeps its folder"
        assert [path.parent.name[:14] for path in tmp_path.rglob("half")] == [".spdify.out.2."]
        shutil.rmtree(tmp_path / "out")
    write(tmp_path / "out.2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.2"]


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
    write(tmp_path / ("x" * 255))
    assert content(tmp_path) == {f"{'x' * 255}/{PLAN_FILE}": "new"}


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


@pytest.mark.parametrize("fails_at", [1, 2, 3])
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
