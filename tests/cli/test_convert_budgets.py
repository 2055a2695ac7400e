"""`spdify convert --budget`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spdify.bundle import read_record

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

SIZE = ("--input-size", "3,16,16")


def test_a_dry_run_fits_into_80_columns(spdify: Spdify, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    before = set(folder.iterdir())
    text = spdify("convert", "resnet50", "--dry-run", "--budget", "macs=+5%", "--budget", "params=+20%").stdout
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("site") and "form" in line) :]
    assert table[0].split() == ["site", "input", "form", "MACs", "parameters", "chosen"]
    assert table[1].split() == ["conv1", "224×224", "minimal", "+0.9%", "+0.011%", "chosen"]
    assert any(line.split()[:3] == ["layer2.0.downsample.0", "56×56", "separable"] for line in table), "no broken rows"
    assert any(line.split()[:4] == ["layer4.0.conv2", "14×14", "keep", "chosen"] for line in table)
    assert "204.5 M more allowed" in text
    assert "nothing was proved, nothing was written" in text
    assert set(folder.iterdir()) == before


def test_a_dry_run_as_json(spdify: Spdify) -> None:
    options = ("--budget", "macs=+20%", "--prefer", "last", "--dry-run", "--json")
    planned = json.loads(spdify("convert", "net.py:build", *SIZE, *options).stdout)
    assert planned["budget"]["prefer"] == "last"
    assert planned["budget"]["limits"][0]["text"] == "macs=+20%"
    site = planned["budget"]["sites"][0]
    assert set(site) == {"site", "size", "rewrite", "forms", "standard", "chosen"}
    assert set(site["forms"][0]["cost"]) == {"macs", "params"}


def test_it_is_written_and_recorded(spdify: Spdify) -> None:
    result = spdify("convert", "net.py:build", *SIZE, "--budget", "macs=+60%", "--no-onnx", "--rules", "spd")
    assert "budget macs=+60%" in result.stdout
    record = read_record(Path("build-spd-budget"))
    assert record.plans[-1].budget is not None
    assert record.plans[-1].rulebook == "spd-budget"


def test_too_little_is_nothing_to_convert(spdify: Spdify) -> None:
    result = spdify("convert", "net.py:build", *SIZE, "--budget", "macs=+0.1%", "--dry-run", code=4)
    assert "nothing can be bought with macs=+0.1%" in result.stderr
    assert "Enough for that: --budget macs=+" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "macs=15%"), "has a + before it"),
        (("--budget", "flops=+15%"), "expected macs, params, latency"),
        (("--budget", "macs=+1%", "--budget", "macs=+2%"), "cannot keep to two budgets for macs"),
        (("--prefer", "last"), "without a budget"),
        (("--budget", "macs=+50%", "--prefer", "nowhere"), "cannot prefer 'nowhere'"),
        (("--budget", "macs=+50%", "--width-factor", "2"), "scale at once"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_usage(spdify: Spdify, options: tuple[str, ...], message: str, dry: bool) -> None:
    if dry and "--width-factor" in options:
        message = "cannot plan --init, --width-factor"
    extra = ("--dry-run",) if dry else ("-o", "out")
    assert message in spdify("convert", "net.py:build", *SIZE, *options, *extra, code=2).stderr
    assert not Path("out").exists()
