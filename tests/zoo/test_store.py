from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from spdify.errors import BundleError, UsageError
from spdify.zoo.records import RunRecord, SweepSettings, ZooRecord
from spdify.zoo.store import MAX_BYTES, RESULTS, RUN, RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_lines_come_back_as_they_were(folder: RunFolder, records: list[ZooRecord]) -> None:
    for record in reversed(records):
        folder.append(RESULTS, record)
    assert folder.results() == sorted(records, key=lambda r: r.name)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_dropped_and_the_next_one_is_whole(
    folder: RunFolder, records: list[ZooRecord], cut: int
) -> None:
    for record in records[:2]:
        folder.append(RESULTS, record)
    file = folder.path / RESULTS
    file.write_bytes(file.read_bytes()[:-cut])
    assert folder.results() == records[:1]
    folder.mend(RESULTS)
    folder.append(RESULTS, records[2])
    assert folder.results() == [records[0], records[2]]


def test_mending_leaves_whole_files_alone(folder: RunFolder, records: list[ZooRecord]) -> None:
    folder.mend(RESULTS)
    assert not (folder.path / RESULTS).exists()
    folder.append(RESULTS, records[0])
    folder.mend(RESULTS)
    assert folder.results() == records[:1]


def test_a_line_that_is_no_record_is_named(folder: RunFolder, records: list[ZooRecord]) -> None:
    folder.append(RESULTS, records[0])
    with (folder.path / RESULTS).open("a") as file:
        file.write('{"name": "x"}\n')
    with pytest.raises(BundleError, match="line 2"):
        folder.results()


def test_one_rulebook_or_several() -> None:
    assert SweepSettings(rules="spd") == SweepSettings(rules=("spd",)) == SweepSettings()
    assert SweepSettings.model_validate_json('{"rules": "spd"}') == SweepSettings(), "as runs wrote it before"
    several = SweepSettings(rules=["a.toml", "spd"])
    assert several.rules == ("a.toml", "spd")
    assert SweepSettings.model_validate_json(several.model_dump_json()) == several


def test_a_run_is_resumed_with_its_own_settings_only(folder: RunFolder, run_record: RunRecord) -> None:
    folder.begin(run_record, resume=False)
    folder.begin(run_record, resume=True)
    with pytest.raises(UsageError, match="holds a run already"):
        folder.begin(run_record, resume=False)
    other = run_record.model_copy(update={"settings": SweepSettings(rules="other")})
    with pytest.raises(UsageError, match=r"rules was \('spd',\) and is now \('other',\)"):
        folder.begin(other, resume=True)
    newer = run_record.model_copy(update={"versions": {"torch": "2.15.0"}})
    with pytest.raises(UsageError, match=r"torch was '2\.14\.0' and is now '2\.15\.0'"):
        folder.begin(newer, resume=True)


def test_a_folder_of_something_else_is_refused(folder: RunFolder, run_record: RunRecord) -> None:
    (folder.path / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        folder.begin(run_record, resume=False)


def test_what_a_killed_start_left_is_no_obstacle(folder: RunFolder, run_record: RunRecord) -> None:
    (folder.path / ".spdify.abcdefgh").mkdir()
    (folder.path / ".spdify.abcdefgh" / "part").write_text("{")
    folder.begin(run_record, resume=False)
    assert folder.run() == run_record


def test_a_folder_without_a_run_says_so(folder: RunFolder) -> None:
    with pytest.raises(BundleError, match="cannot read the run"):
        folder.run()


def test_a_second_run_on_one_folder_says_so(folder: RunFolder) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom spdify.zoo.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another run"), folder.locked():
            pass
    finally:
        other.kill()
        other.communicate()
    with folder.locked():
        pass


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot write"), RunFolder(tmp_path / "file" / "run").locked():
        pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "not a plain file"),
        (os.mkdir, "not a plain file"),
        (lambda file: file.symlink_to("/dev/zero"), "not a plain file"),
        (lambda file: (file.touch(), os.truncate(file, MAX_BYTES + 1)), "at most 268435456 bytes"),
    ],
    ids=["pipe", "folder", "device", "large"],
)
def test_what_never_ends_is_not_read(folder: RunFolder, make: Callable[[Path], object], words: str) -> None:
    make(folder.path / RUN)
    with pytest.raises(BundleError, match=f"cannot read the run in .*{words}"):
        folder.run()
    make(folder.path / RESULTS)
    with pytest.raises(BundleError, match=f"cannot read .*{words}"):
        folder.results()
    with pytest.raises(BundleError, match=f"cannot write .*{words}"):
        folder.mend(RESULTS)


def test_a_pipe_is_not_written_to(folder: RunFolder, records: list[ZooRecord]) -> None:
    os.mkfifo(folder.path / RESULTS)
    with pytest.raises(BundleError, match=r"cannot write .*results\.jsonl: it is not a plain file"):
        folder.append(RESULTS, records[0])


@pytest.mark.parametrize("text", [None, "", "torn"])
def test_lines_are_not_written_through_links(
    folder: RunFolder, records: list[ZooRecord], tmp_path_factory: pytest.TempPathFactory, text: str | None
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "precious"
    if text is not None:
        outside.write_text(text)
    (folder.path / RESULTS).symlink_to(outside)
    with pytest.raises(BundleError, match=r"cannot write .*results\.jsonl: it is a link"):
        folder.append(RESULTS, records[0])
    with pytest.raises(BundleError, match=r"cannot write .*results\.jsonl"):
        folder.mend(RESULTS)
    assert (outside.read_text() if outside.exists() else None) == text
