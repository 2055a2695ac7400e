from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import spdify as package
from spdify.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Spdify

HEAVY = ("torch", "timm", "onnx", "onnxruntime", "numpy", "safetensors")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=os.environ | env
    )


@pytest.mark.parametrize("args", [["--help"], ["convert", "--help"], ["rules", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['spdify', *{args!r}]\n"
        "from spdify.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = python(code)
    assert done.returncode == 0
    assert "HEAVY []" in done.stdout
    assert done.stderr == ""


def test_help_and_version(spdify: Spdify) -> None:
    assert f"spdify {package.__version__}\n" == spdify("--version").stdout
    text = spdify("--help").stdout
    assert all(command in text for command in ("convert", "inspect", "report", "rules", "schema"))
    text = spdify("convert", "-h").stdout
    assert "--dry-run" in text
    assert "130 interrupted" in text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", [["convert"], ["study"], ["zoo", "run"], ["rules", "check"]])
def test_the_terminal_breaks_the_lines_of_a_description(
    spdify: Spdify, monkeypatch: pytest.MonkeyPatch, command: list[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = spdify(*command, "--help").stdout.partition("╭")[0]
    for paragraph in text.partition("Usage")[2].split("\n" + " " * width + "\n")[1:]:
        lines = [line.strip() for line in paragraph.strip("\n").splitlines()]
        firsts = [line.partition(" ")[0] for line in lines]
        for line, word in zip(lines, firsts[1:], strict=False):
            assert len(line) + 1 + len(word) > width - 2, f"{line!r} ends early"


@pytest.mark.parametrize("args", [["nonsense"], ["convert"], ["convert", "a", "--nonsense"], ["inspect", "a", "b"]])
def test_wrong_usage(spdify: Spdify, args: list[str]) -> None:
    assert "Usage" in spdify(*args, code=2).stderr


@pytest.mark.parametrize("kind", ["bundle", "plan", "report", "inspection", "zoo"])
def test_schema(spdify: Spdify, kind: str) -> None:
    schema = json.loads(spdify("schema", kind).stdout)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


def test_schema_of_nothing(spdify: Spdify) -> None:
    result = spdify("schema", "nonsense", code=2)
    assert "cannot print the schema of 'nonsense'" in result.stderr
    assert "bundle, plan, report, inspection" in result.stderr


@pytest.mark.parametrize("module", ["typer", "rich.console", "torch"])
def test_interrupt_while_importing(module: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"sys.argv = ['spdify', 'convert', 'resnet18', '-o', {str(tmp_path / 'out')!r}]\n"
        "from spdify.cli import main\n"
        "main()\n"
    )
    done = python(code)
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr == "error: interrupted; nothing was left half-written\n"
    assert list(tmp_path.iterdir()) == []


def test_main_ends_with_the_code_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["spdify", "rules", "show", "nonsense"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert "cannot find rulebook 'nonsense'" in capsys.readouterr().err


def test_narrow_encoding() -> None:
    code = "import sys; sys.argv = ['spdify', 'schema']\nfrom spdify.cli import main\nmain()"
    done = python(code, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["title"] == "BundleRecord"


def test_public_names() -> None:
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package.nonsense  # noqa: B018
