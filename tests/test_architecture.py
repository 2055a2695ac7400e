"""What holds for the project as a whole: imports go down only, and no file knows the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Written as character classes, so that this file does not name them itself.
FORBIDDEN = {
    "a registry's host": re.compile(
        r"pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org|anaconda[.]org|npmjs[.]org|jsdelivr[.]net"
    ),
    "a path of one machine": re.compile(r"/[w]ork/|/[t]mp/w\b|/[h]ome/\w|/[U]sers/\w"),
}


def project_files() -> list[Path]:
    """Give the files that git tracks, or would if they were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a git checkout")
    # What is deleted and not yet committed is still listed.
    return [file for name in listed.split("\0") if name and (file := ROOT / name).is_file()]


def offences(text: str) -> list[str]:
    """Give what `text` names and should not."""
    return [f"{what}: {found[0]}" for what, pattern in FORBIDDEN.items() if (found := pattern.search(text))]


def lint_imports(cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the project in `cwd`, without a cache of an earlier state."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False, text=True)


def test_imports_go_down_only() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors", "import spdify.records"),
        ("rulebook", "from spdify import graph"),
        ("engine", "import spdify.cli"),
        ("newcomer", ""),
    ],
)
def test_an_import_that_goes_up_is_found(tmp_path: Path, module: str, line: str) -> None:
    config = (ROOT / "pyproject.toml").read_text()
    layers = tomllib.loads(config)["tool"]["importlinter"]["contracts"][0]["layers"]
    (tmp_path / "pyproject.toml").write_text(config)
    package = tmp_path / "spdify"
    package.mkdir()
    for name in ["__init__", *re.findall(r"\w+", " ".join(layers))]:
        (package / f"{name}.py").touch()
    before = lint_imports(tmp_path)
    assert before.returncode == 0, before.stdout
    (package / f"{module}.py").write_text(f"{line}\n")
    after = lint_imports(tmp_path)
    assert after.returncode == 1
    assert module in after.stdout


def test_no_file_names_a_registry_or_a_machine() -> None:
    files = project_files()
    assert ROOT / "pyproject.toml" in files
    found = {str(f.relative_to(ROOT)): o for f in files if (o := offences(f.read_text(errors="replace")))}
    assert found == {}


@pytest.mark.parametrize("parts", [("https://pypi", "org/x"), ("files.pythonhosted", "org")])
def test_a_registry_would_be_found(parts: tuple[str, str]) -> None:
    assert offences(".".join(parts))


@pytest.mark.parametrize("parts", [("", "work", "x"), ("", "tmp", "w", "venv"), ("", "home", "me")])
def test_a_machine_would_be_found(parts: tuple[str, ...]) -> None:
    assert offences("/".join(parts))
    assert not offences("/".join(parts[1:2]))
