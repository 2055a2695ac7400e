"""Where rulebooks are found, and what is said when they are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spdify.errors import RulebookError
from spdify.rulebook import list_rulebooks, load_rulebook, rules_folder, shelf

GOOD = 'schema = 1\nsummary = "s"\n[[rule]]\nname = "a"\nrewrite = "replace"\nmatch = {}\n'


def fault(name_or_path: str | Path) -> str:
    with pytest.raises(RulebookError) as caught:
        load_rulebook(str(name_or_path))
    return str(caught.value)


def test_every_rulebook_of_the_folder_is_listed_and_can_be_read() -> None:
    names = list_rulebooks()
    assert "spd" in names
    assert names == sorted(file.stem for file in rules_folder().iterdir())
    assert [load_rulebook(name).name for name in names] == names


def test_the_default_rulebook_says_what_it_does() -> None:
    book = load_rulebook("spd")
    rules = {rule.name: (rule.rewrite, rule.params) for rule in book.rules}
    assert rules == {
        "strided-conv": (
            "replace-strided-conv",
            {"kernel": "minimal", "pointwise": "separable", "standardisation": "keep"},
        ),
        "average-pool": ("replace-average-pool", {"form": "depthwise"}),
        "blur-pool": ("replace-blur-pool", {}),
        "max-pool": ("replace-max-pool", {"form": "tournament"}),
        "subsampling-slice": ("replace-subsampling-slice", {}),
    }
    assert str(book.source) == "arXiv:2208.03641, section 3"


def test_a_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "my rules.toml"
    file.write_text(GOOD)
    assert load_rulebook(str(file)).name == "my rules"


def test_a_file_beside_does_not_hide_a_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spd.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert len(load_rulebook("spd").rules) == 5
    assert len(load_rulebook("spd.toml").rules) == 1


@pytest.mark.parametrize("name", ["sdp", "missing/spd.toml", "SPD"])
def test_a_near_name_is_offered(name: str) -> None:
    assert fault(name).endswith("Did you mean 'spd'?")


@pytest.mark.parametrize("name", ["", "nothing-like-it", ".", "../rules/spd", "a\0.toml", "x" * 5000 + ".toml"])
def test_what_cannot_be_found_is_said(name: str) -> None:
    assert fault(name).startswith("cannot find rulebook ")


def test_a_folder_is_no_rulebook(tmp_path: Path) -> None:
    folder = tmp_path / "x.toml"
    folder.mkdir()
    assert fault(folder).endswith("expected a file, got a folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.toml"
    os.mkfifo(pipe)
    assert "expected a file" in fault(pipe)


def test_the_size_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(GOOD + "#" * (2**20 - len(GOOD)))
    assert load_rulebook(str(file)).summary == "s"
    file.write_text(GOOD + "#" * (2**20 - len(GOOD) + 1))
    assert "expected at most 1048576 bytes" in fault(file)


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.toml"
    file.write_text(GOOD)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert fault(file).endswith("x.toml: Permission denied")


def test_the_rules_inside_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "spdify"
    package.mkdir(parents=True)
    monkeypatch.setattr(shelf, "_PACKAGE", package)
    with pytest.raises(RulebookError, match="expected a folder _rules"):
        rules_folder()
    (package.parent / "rules").mkdir()
    assert rules_folder() == package.parent / "rules"
    (package / "_rules").mkdir()
    assert rules_folder() == package / "_rules"


def test_reading_rulebooks_does_not_import_torch() -> None:
    code = "import sys, spdify.rulebook as r; r.load_rulebook('spd'); sys.exit('torch' in sys.modules)"
    root = Path(shelf.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
