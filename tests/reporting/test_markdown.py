from __future__ import annotations

import math
from typing import TYPE_CHECKING

from spdify.records import Check
from spdify.reporting import report_markdown
from spdify.reporting.figures import quantity
from spdify.reporting.markdown import check_figures, headline, overlaps

if TYPE_CHECKING:
    from spdify.records import Report


def rows(text: str, title: str) -> list[list[str]]:
    """Cells of the table under a title, without its head."""
    section = text.partition(f"\n## {title}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_figures_are_those_of_the_record(report: Report) -> None:
    text = report_markdown(report)
    totals = {row[0].strip(): row[1:3] for row in rows(text, "Totals")}
    assert totals["parameters"] == [quantity(report.before.params), quantity(report.after.params)]
    assert totals["MACs"] == [quantity(report.before.macs), quantity(report.after.macs)]
    assert totals["FLOPs (2 per MAC)"] == [quantity(2 * report.before.macs), quantity(2 * report.after.macs)]
    assert totals["weights file"] == [quantity(m.weight_bytes, "B") for m in (report.before, report.after)]
    sites = {row[0]: row for row in rows(text, "Sites")}
    for cost in report.sites:
        assert sites[cost.name][4] == f"{quantity(cost.before.params)} → {quantity(cost.after.params)}"
        assert sites[cost.name][5] == f"{quantity(cost.before.macs)} → {quantity(cost.after.macs)}"
    assert len(sites) == len(report.decisions)
    assert sites["1"][3].startswith("kept")
    assert [row[0] for row in rows(text, "Left alone")] == [item.path for item in report.left_alone]
    checks = rows(text, "Checks")
    assert [row[0] for row in checks] == [check.name for check in report.checks]
    assert [row[1] for row in checks] == [check.outcome for check in report.checks]


def test_bars_and_breaks_stay_in_their_cell(report: Report) -> None:
    check = Check(name="a|b", outcome="not run", detail="one\ntwo")
    text = report_markdown(report.model_copy(update={"checks": (check,)}))
    assert "| a\\|b | not run | one two |  |  |" in text


def test_headline(report: Report) -> None:
    assert headline(report).startswith("2 strided convolutions replaced (same function to ")
    assert ", 1 kept, 0 refused; parameters +" in headline(report)


def test_headline_claims_no_proof_that_was_not_made(report: Report) -> None:
    checks = (Check(name="whole model, eval", outcome="not run", value=0.0, detail="the output is constant"),)
    assert "(same function, proved site by site)," in headline(report.model_copy(update={"checks": checks}))
    assert "(same function by claim, not proved here)," in headline(report.model_copy(update={"checks": ()}))


def overlapping(report: Report, *rules: tuple[str, tuple[str, ...]]) -> Report:
    decisions = report.decisions * 2
    made = (
        d.model_copy(update={"rule": rule, "also_matched": others})
        for d, (rule, others) in zip(decisions, rules, strict=False)
    )
    return report.model_copy(update={"decisions": tuple(made)})


def test_overlaps_within_one_book_are_not_told(report: Report) -> None:
    assert overlaps(report) == ""
    assert overlaps(overlapping(report, ("stem", ("conv", "all")), ("a/stem", ("a/conv",)))) == ""


def test_overlaps_of_several_books_are_told_in_one_line(report: Report) -> None:
    one = ("a/stem", ("a/conv", "b/stem", "b/conv"))
    text = "1 site is matched by a later rulebook too; the first wins: 0 (a/stem before b/stem)."
    assert overlaps(overlapping(report, one, ("b/conv", ()))) == text
    assert f"\n\n{text}\n" in report_markdown(overlapping(report, one))
    many = overlaps(overlapping(report, *[one] * 4))
    assert many.startswith("4 sites are matched by a later rulebook too; the first wins: 0 (a/stem before b/stem), 1 (")
    assert many.endswith(", 2 (a/stem before b/stem), …")


def test_check_figures() -> None:
    assert check_figures(Check(name="x", outcome="passed")) == ("", "")
    assert check_figures(Check(name="x", outcome="passed", value=3.0, tolerance=1e-9)) == ("3", "1.0e-09")
    assert check_figures(Check(name="x", outcome="failed", value=math.inf)) == ("inf", "")
