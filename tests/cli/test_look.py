from __future__ import annotations

import json
import re
import shlex
import sys
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spdify.records import Report
from spdify.reporting import Inspection, report_markdown

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

SIZE = ("--input-size", "3,16,16")
POOLS = """schema = 1
summary = "Leave the pools."
[[rule]]
name = "leave"
rewrite = "keep"
reason = "they stay"
match = { operator = "max_pool" }
"""


def test_inspect(spdify: Spdify) -> None:
    text = spdify("inspect", "net.py:build", *SIZE).stdout
    assert text.startswith("build at 3×16×16: 3 sites, ")
    assert "conv2d 3x3 s2 p1" in text
    assert "global: pools the whole map" in text
    found = Inspection.model_validate_json(spdify("inspect", "net.py:build", *SIZE, "--json").stdout)
    assert [site.path for site in found.sites] == ["0", "3", "4"]
    assert found.disagreements == ()


def test_inspect_a_bundle_at_another_size(spdify: Spdify, bundle: Path) -> None:
    found = json.loads(spdify("inspect", bundle, "--code", "net.py:build", "--input-size", "3,32,32", "--json").stdout)
    assert found["inputs"]["args"][0]["shape"] == [1, 3, 32, 32]
    assert found["sites"] == []


def test_report_of_a_model(spdify: Spdify) -> None:
    text = spdify("report", "net.py:build", *SIZE).stdout
    assert "2 strided convolutions and 1 max pool replaced (same function by claim, not proved here)" in text
    made = Report.model_validate_json(spdify("report", "net.py:build", *SIZE, "--json").stdout)
    assert made.proof == "none"
    assert spdify("report", "net.py:build", *SIZE, "--markdown").stdout == report_markdown(made)


def test_report_with_several_rulebooks(spdify: Spdify) -> None:
    Path("pools.toml").write_text(POOLS, encoding="utf-8")
    args = ("net.py:build", *SIZE, "-r", "pools.toml", "-r", "spd", "--set", "strided-conv.kernel=odd")
    made = Report.model_validate_json(spdify("report", *args, "--json").stdout)
    assert made.rulebook == "pools+spd"
    assert [d.rule for d in made.decisions] == ["spd/strided-conv", "pools/leave", "spd/strided-conv"]
    assert made.decisions[0].params["kernel"] == "odd"
    assert made.decisions[1].also_matched == ("spd/max-pool",)
    line = "1 site is matched by a later rulebook too; the first wins: 3 (pools/leave before spd/max-pool)."
    assert line in spdify("report", *args).stdout
    assert line in spdify("report", *args, "--markdown").stdout


@pytest.mark.parametrize("rules", [("-r", "spd", "-r", "spd"), ("-r", "pools.toml", "-r", "sub/pools.toml")])
def test_report_with_two_rulebooks_of_one_name(spdify: Spdify, rules: tuple[str, ...]) -> None:
    Path("sub").mkdir()
    for file in (Path("pools.toml"), Path("sub/pools.toml")):
        file.write_text(POOLS, encoding="utf-8")
    result = spdify("report", "net.py:build", *SIZE, *rules, code=1)
    assert "cannot join rulebooks: expected a name of its own for each" in result.stderr


def test_report_of_a_bundle_is_its_own(spdify: Spdify, bundle: Path) -> None:
    stored = (bundle / "report.json").read_text(encoding="utf-8")
    assert json.loads(spdify("report", bundle, "--json").stdout) == json.loads(stored)
    assert spdify("report", bundle, "--markdown").stdout == (bundle / "report.md").read_text(encoding="utf-8")
    assert "check (level model)" in spdify("report", bundle).stdout


@pytest.mark.parametrize("args", [("--input-size", "3,32,32"), ("--rules", "other"), ("--set", "max-pool.form=keep")])
def test_report_of_a_bundle_follows_no_wishes(spdify: Spdify, bundle: Path, args: tuple[str, str]) -> None:
    result = spdify("report", bundle, *args, code=2)
    assert "a bundle gives the report it was saved with" in result.stderr
    assert "name the original model" in result.stderr


def test_report_of_two(spdify: Spdify) -> None:
    made = json.loads(spdify("report", "net.py:build", "net.py:plain", *SIZE, "--json").stdout)
    assert made["model"] == "build → plain"
    assert made["decisions"] == []
    assert "replaced" not in spdify("report", "net.py:build", "net.py:plain", *SIZE).stdout


def test_report_of_two_sizes_says_so(spdify: Spdify, bundle: Path) -> None:
    size = ("--input-size", "3,32,32")
    spdify("convert", "net.py:build", *size, "--no-onnx", "-q", "-o", "other", "--overwrite")
    made = json.loads(spdify("report", bundle, "other", "--code", "net.py:build", "--json").stdout)
    assert made["model"] == "bundle at 3×16×16 → other at 3×32×32"


def test_report_to_a_file(spdify: Spdify) -> None:
    result = spdify("report", "net.py:build", *SIZE, "-o", "sub/report.md")
    assert result.stdout == ""
    text = Path("sub/report.md").read_text(encoding="utf-8")
    assert text.startswith("# build, spd\n")
    refused = spdify("report", "net.py:build", *SIZE, "-o", "sub/report.md", code=1)
    assert "cannot write sub/report.md: it exists" in refused.stderr
    assert "--overwrite" in refused.stderr
    spdify("report", "net.py:build", *SIZE, "--json", "-o", "sub/report.md", "--overwrite")
    Report.model_validate_json(Path("sub/report.md").read_text(encoding="utf-8"))
    assert [p.name for p in Path("sub").iterdir()] == ["report.md"]


def test_report_in_two_forms(spdify: Spdify) -> None:
    for one, other in (("--json", "--markdown"), ("--json", "--html"), ("--markdown", "--html")):
        assert f"both {one} and {other}" in spdify("report", "net.py:build", one, other, code=2).stderr


def test_report_is_not_written_over_a_device(spdify: Spdify) -> None:
    result = spdify("report", "net.py:build", *SIZE, "-o", "/dev/null", "--overwrite", code=1)
    assert "cannot write /dev/null: it is not a plain file" in result.stderr


def test_a_page_of_a_bundle_is_the_one_in_it(spdify: Spdify, bundle: Path) -> None:
    spdify("report", bundle, "--html", "-o", "page.html")
    assert Path("page.html").read_text(encoding="utf-8") == (bundle / "report.html").read_text(encoding="utf-8")


def test_a_page_of_a_model_tells_how_to_make_it_again(spdify: Spdify) -> None:
    text = spdify("report", "net.py:build", *SIZE, "--html").stdout
    assert text.startswith("<!DOCTYPE html>")
    assert f"<code>{shlex.join(['spdify', *sys.argv[1:]])}</code>" in unescape(text)
    assert "what stands here is claimed by the rewrites and was not run" in text


def test_two_bundles_site_by_site(spdify: Spdify, bundle: Path) -> None:
    spdify("convert", "net.py:build", *SIZE, "--no-onnx", "-q", "-o", "odd", "--set", "strided-conv.kernel=odd")
    args = ("report", bundle, "odd", "--code", "net.py:build")
    made = Report.model_validate_json(spdify(*args, "--json").stdout)
    assert made.model == "bundle → odd"
    first = made.compared[0]
    assert (first.first, first.second) == ("replace-strided-conv, exact", "replace-strided-conv (kernel odd), exact")
    assert "replace-strided-conv (kernel odd), exact" in spdify(*args).stdout
    assert "replace-strided-conv (kernel odd), exact" in spdify(*args, "--html").stdout
    args = ("report", "net.py:build", "odd", "--code", "net.py:build", *SIZE)
    original = Report.model_validate_json(spdify(*args, "--json").stdout)
    assert original.compared[0].first == "as it is"


@pytest.mark.parametrize(("width", "wide"), [(80, False), (120, True)])
def test_a_report_fits_the_terminal(
    spdify: Spdify, bundle: Path, monkeypatch: pytest.MonkeyPatch, width: int, wide: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich knows
    shown = spdify("report", bundle).stdout
    assert "\x1b[1m" in shown
    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]", shown)  # bold, but no colour
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, text.splitlines())) <= width
    assert ("reads" in text) == wide
    assert ("3×16×16 → " in text) == wide
