"""The fault campaign: `python -m tests.faults -o FOLDER` runs all of it, and goes on where it was cut off."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.faults.forked import import_libraries
from tests.faults.parts import PARTS
from tests.faults.trials import read_trials, run_part, table


def main() -> int:
    """Run parts of the campaign and write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="a file of trials for each part"
    )
    parser.add_argument("--short", action="store_true", help="as many trials as CI runs")
    parser.add_argument("--count", type=int, help="trials of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    import_libraries()
    for name in asked.parts or PARTS:
        part, started = PARTS[name], time.monotonic()
        count = asked.count or (part.short if asked.short else part.full)
        trials = run_part(part, asked.output, count=count, seed=asked.seed, jobs=asked.jobs)
        bad = [trial for trial in trials if not trial.good]
        print(f"{name}: {len(trials)} trials, {len(bad)} bad, {time.monotonic() - started:.0f} s", file=sys.stderr)
        for trial in bad[:20]:
            print(f"  {trial.name}: {trial.outcome}: {trial.detail[:300]}", file=sys.stderr)
    found = [(name, list(read_trials(asked.output / f"{name}.jsonl"))) for name in PARTS]
    (asked.output / "table.md").write_text(table(found), encoding="utf-8")
    print(table(found))
    return int(any(not trial.good for _, trials in found for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
