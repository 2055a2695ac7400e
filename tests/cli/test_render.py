from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from spdify.bundle import read_record, read_report
from spdify.cli.render import render_conversion, render_report
from spdify.cli.terminal import json_text, printable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Spdify

SIZE = ("--input-size", "3,16,16")


@pytest.mark.parametrize("command", ["inspect", "report", "bundle"])
def test_eighty_columns(spdify: Spdify, bundle: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    args = ["report", str(bundle)] if command == "bundle" else [command, "net.py:build", *SIZE]
    lines = spdify(*args).stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_no_terminal_no_colour(spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in spdify("inspect", "net.py:build", *SIZE).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = spdify("inspect", "net.py:build", *SIZE).stdout
    assert "\x1b[3" not in text  # no colours; bold is none


def test_paths_and_names_are_no_markup(bundle: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    report = read_report(bundle).model_copy(update={"model": "evil[/red]\x1b]0;title\x07"})
    render_conversion(Console(file=stream, width=200), report, read_record(bundle), tmp_path / "out[/]")
    assert "evil[/red]�]0;title�" in stream.getvalue()
    assert "out[/]" in stream.getvalue()


def test_report_without_shapes(bundle: Path) -> None:
    report = read_report(bundle)
    bare = report.decisions[0].model_copy(update={"site": report.decisions[0].site.model_copy(update={"calls": ()})})
    stream = io.StringIO()
    render_report(Console(file=stream), report.model_copy(update={"decisions": (bare,)}))
    assert "applied" in stream.getvalue()


def test_json_has_no_infinity() -> None:
    assert json.loads(json_text({"a": float("inf"), "b": float("nan")})) == {"a": None, "b": None}


def test_printable() -> None:
    assert printable("a\x1b[2J\x9b\r\n\tb") == "a�[2J��\n\tb"
