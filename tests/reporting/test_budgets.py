from __future__ import annotations

from spdify.records import Budget, LatencyCheck, Limit, SiteForm, SiteOptions
from spdify.reporting.budgets import budget_columns, budget_lines, budget_rows

MACS = Limit(text="macs=+10%", quantity="macs", original=2_000_000, allowed=200_000)
LATENCY = Limit(text="latency=+3ms", quantity="latency", original=0.05, allowed=0.003)
FORMS = (
    SiteForm(name="minimal", cost={"macs": 40_000, "params": 3, "latency": 0.0015}),
    SiteForm(name="odd", cost={"macs": 500_000, "params": 9, "latency": -0.0005}),
)
SITES = (
    SiteOptions(site="stem", size=(32, 16), rewrite="r", forms=FORMS, standard="minimal", chosen="minimal"),
    SiteOptions(site="later", size=(8,), rewrite="r", forms=FORMS[:1], standard="minimal"),
)
FOUND = LatencyCheck(rounds=15, ratio=1.021, low=0.99, high=1.08, threads=2, device="cpu", taken_back=1)


def test_rows() -> None:
    budget = Budget(limits=(MACS, LATENCY), prefer="resolution", sites=SITES)
    assert budget_columns(budget) == ("site", "input", "form", "MACs", "latency", "chosen")
    assert budget_rows(budget) == [
        ("stem", "32×16", "minimal", "+2.0%", "+3.0%", "chosen"),
        ("", "", "odd", "+25.0%", "-1.0%", ""),
        ("later", "8", "keep", "", "", "chosen"),
        ("", "", "minimal", "+2.0%", "+3.0%", ""),
    ]


def test_lines() -> None:
    assert budget_lines(Budget(limits=(MACS,), prefer="resolution", sites=SITES)) == [
        (
            "Budget macs=+10%: 200 k more allowed, 40 k spent (+2.0%); every site in its standard form +4.0%, in its "
            "dearest +27.0%."
        ),
        "Bought in this order: highest input resolution first; standard forms, then richer ones.",
    ]
    first, whole, where, order = budget_lines(Budget(limits=(LATENCY,), prefer="stem*", sites=SITES, latency=FOUND))
    assert first.startswith("Budget latency=+3ms: 3 ms more allowed, 1.5 ms spent, site by site (+3.0%)")
    assert whole == (
        "Whole network in its deployed form, with weights as if trained: +2.1% latency (median of 15 pairs; quartiles "
        "-1.0% to +8.0%); the last 1 of what was bought taken back for it."
    )
    assert where == "Measured with PyTorch on this machine (cpu, 2 threads), batch 1; other machines differ."
    assert order.startswith("Bought in this order: stem* first, then by resolution")
