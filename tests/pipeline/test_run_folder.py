from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from spdify.errors import BundleError
from spdify.pipeline.run_folder import STATE, RunFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: object, file: Path, **__: object) -> None:
        (file.parent / ".tmpAbCdEf").write_bytes(b"torn")  # as safetensors begins a file
        os._exit(9)

    folder = RunFolder(tmp_path)
    folder.save_state({"weight": torch.ones(2)}, [])
    monkeypatch.setattr("spdify.pipeline.run_folder.save_file", killed)
    if (child := os.fork()) == 0:
        folder.save_state({"weight": torch.zeros(2)}, [])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(tmp_path.iterdir())) == 2
    folder.clean()
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    saved = folder.load_state()
    assert saved is not None
    assert torch.equal(saved[0]["weight"], torch.ones(2))


def test_what_had_stepped_aside_for_a_killed_run_comes_back(tmp_path: Path) -> None:
    for aside, name in (("a", "best"), ("b", "last")):
        (tmp_path / f".spdify.{aside}.old" / name).mkdir(parents=True)
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "newer").touch()
    RunFolder(tmp_path).clean()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"best", "last", "last/newer"}


def test_state_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    folder = RunFolder(tmp_path)
    folder.save_state({"weight": torch.ones(2)}, [])
    monkeypatch.setattr("spdify.pipeline.run_folder.save_file", full)
    with pytest.raises(BundleError, match="no space left"):
        folder.save_state({"weight": torch.zeros(2)}, [])
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
