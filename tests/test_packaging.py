"""The wheel, the source archive and the checkout hold the same spdify, rulebooks included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import spdify

ROOT = Path(__file__).resolve().parents[1]
RULEBOOKS = sorted(file.stem for file in (ROOT / "rules").glob("*.toml"))

PROBE = """
import json, spdify
from spdify.rulebook import list_rulebooks, load_rulebook, rules_folder
books = [load_rulebook(name).name for name in list_rulebooks()]
print(json.dumps([spdify.__version__, spdify.__file__, str(rules_folder()), books]))
"""


def run(*command: str | Path, cwd: Path = ROOT, path: Path | None = None) -> str:
    """Run Python with these arguments and give its stdout; `path` is where it imports from first."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if path:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def probe(path: Path, cwd: Path) -> tuple[str, Path, Path, list[str]]:
    """Import spdify from `path`; give its version, file, folder of rulebooks and the rulebooks that it can read."""
    version, file, folder, books = json.loads(run("-c", PROBE, cwd=cwd, path=path))
    return version, Path(file), Path(folder), books


@pytest.fixture(scope="module", params=["wheel", "wheel of the source archive"])
def dist(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build into a folder of its own: from the checkout, and the way a release is built."""
    folder = tmp_path_factory.mktemp("dist")
    only = ["--wheel"] if request.param == "wheel" else []
    run("-m", "build", *only, "--no-isolation", "--outdir", folder)
    return folder


@pytest.fixture
def installed(dist: Path, tmp_path: Path) -> Path:
    """Unpack the wheel as pip does, without its dependencies, which this environment has."""
    (wheel,) = dist.glob("*.whl")
    target = tmp_path / "installed"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    return target


def test_versions_agree() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert spdify.__version__ == declared


def test_the_checkout_finds_its_rulebooks(tmp_path: Path) -> None:
    _, file, folder, books = probe(ROOT, tmp_path)
    assert file == ROOT / "spdify" / "__init__.py"
    assert folder == ROOT / "rules"
    assert books == RULEBOOKS


@pytest.mark.slow
def test_the_wheel_finds_its_rulebooks(installed: Path, tmp_path: Path) -> None:
    version, file, folder, books = probe(installed, tmp_path)
    assert version == spdify.__version__
    assert file == installed / "spdify" / "__init__.py"
    assert folder == installed / "spdify" / "_rules"
    assert books == RULEBOOKS


@pytest.mark.slow
def test_the_wheel_holds_the_digits_and_their_licence(installed: Path) -> None:
    for name in ("digits.npz", "DIGITS.md"):
        assert (installed / "spdify" / "datasets" / name).is_file()


@pytest.mark.slow
def test_the_wheel_holds_the_templates_of_pages(installed: Path) -> None:
    folder = Path("spdify/reporting/templates")
    ours = {path.name for path in (ROOT / folder).iterdir()}
    assert {"report.html", "page.css", "page.js"} <= ours
    assert {path.name for path in (installed / folder).iterdir()} == ours


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir()}
    assert tops == {"bin", "spdify", f"spdify-{spdify.__version__}.dist-info"}
    ours = {path.relative_to(ROOT) for path in (ROOT / "spdify").rglob("*.py")}
    assert {path.relative_to(installed) for path in (installed / "spdify").rglob("*.py")} == ours
    assert (installed / "spdify" / "py.typed").is_file()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.slow
def test_an_editable_install_points_at_the_checkout(tmp_path: Path) -> None:
    command = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", tmp_path / "site"]
    run("-m", "pip", *command, "--editable", ROOT, cwd=tmp_path)
    # A copy of the rulebooks among what is installed would go stale.
    assert {path.name for path in (tmp_path / "site").iterdir()} >= {"bin"}
    assert not (tmp_path / "site" / "spdify").exists()
    (link,) = (tmp_path / "site").glob("*.pth")
    assert Path(link.read_text().strip()) == ROOT


@pytest.mark.slow
def test_the_source_archive_holds_what_a_build_and_the_tests_need(tmp_path: Path) -> None:
    run("-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "constraints.txt", "LICENSE", "rules/spd.toml", "tests/test_packaging.py"} <= names
