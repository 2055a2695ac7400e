"""What a report's page says of the networks: stages with their blocks side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spdify.reporting.bars import Bars, Quantities, make_bars
from spdify.reporting.figures import change, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spdify.records import Part, Report
    from spdify.reporting.pairs import Pair, Stage

OPEN_ROWS = 24  # shown when the page opens
MARKS = {"applied": ("◆ changed", "good", "changed"), "refused": ("○ refused", "open", "refused")}
MARKS["kept"] = ("○ kept", "open", "kept")
STAYS = ("refused", "kept")


def network_rows(
    report: Report, pairs: Sequence[Pair], stages: Sequence[Stage], ids: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Give the stages with their parts side by side."""
    if not report.parts_after:
        return []
    marked = {id(pair): _marked(report, pair, ids) for pair in pairs}
    shown, rows = [], 0
    for number, stage in enumerate(stages):
        parts = [_row(pair, marked[id(pair)]) for pair in stage.pairs if not _says_nothing(pair, marked[id(pair)])]
        changed = sum(part["style"] == "changed" for part in parts)
        opened = any(part["marks"] for part in parts) and rows + len(parts) <= OPEN_ROWS
        rows += len(parts) * opened
        shapes = [shape for pair in stage.pairs[-1:] if (shape := _shape(pair.part))]
        count = f"{len(parts)} block{'s' * (len(parts) != 1)}"
        shown.append(
            {
                "id": f"stage-{number}", "name": stage.name, "open": opened, "parts": parts, "changed": changed,
                "differs": sum(part["style"] == "follows" for part in parts),
                "stays": sum(any(mark["style"] in STAYS for mark in part["marks"]) for part in parts), "count": count,
                "shape": shapes[0] if shapes else "", "params": _arrow(stage, "params"), "macs": _arrow(stage, "macs"),
            }
        )  # fmt: skip
    return shown


def _arrow(stage: Stage, what: str) -> str:
    before, after = stage.total("before", what), stage.total("after", what)
    return quantity(before) if before == after else f"{quantity(before)} → {quantity(after)} ({change(before, after)})"


def _says_nothing(pair: Pair, mark: Mapping[str, Any]) -> bool:
    """Whether a part is there for its name alone: an identity or dropout that costs nothing before and after."""
    sides = [part for part in (pair.before, pair.after) if part is not None]
    idle = all(part.type_name in {"Identity", "Dropout"} for part in sides)
    return idle and not mark["marks"]


def _row(pair: Pair, mark: Mapping[str, Any]) -> dict[str, Any]:
    before = _part(pair.before, pair.before_index, "parts_before")
    same = not mark["marks"]
    return {"before": before, "after": _part(pair.after, pair.after_index, "parts_after"), "same": same, **mark}


def _part(part: Part | None, index: int | None, where: str) -> dict[str, str] | None:
    if part is None:
        return None
    return {
        "name": part.path or "(the network itself)", "type_name": part.type_name, "shape": _shape(part),
        "params": quantity(part.params), "macs": quantity(part.macs), "params_path": f"{where}.{index}.params",
        "macs_path": f"{where}.{index}.macs",
    }  # fmt: skip


def _shape(part: Part) -> str:
    return "" if part.output is None else "×".join(map(str, part.output[1:]))


def _marked(report: Report, pair: Pair, ids: Mapping[str, str]) -> dict[str, Any]:
    """Say what happened to a part: marks in words with links to the sites, and the style of the first."""
    inside = [d for d in report.decisions if pair.holds(d.site)] if pair.part.path else []
    marks = []
    for action, (words, colour, style) in MARKS.items():
        links = [(ids[d.site.name], d.site.name) for d in inside if d.action == action]
        if links:
            marks.append({"words": words, "colour": colour, "style": style, "links": links})
    if not marks and (other := _other_mark(report, pair)):
        marks.append({"words": other, "colour": "seen", "style": "follows", "links": []})
    return {"marks": marks, "style": marks[0]["style"] if marks else ""}


def _other_mark(report: Report, pair: Pair) -> str:
    """Say how a part without sites differs; nothing where it does not."""
    if pair.before is None or pair.after is None:
        there, gone = ("＋ added", "− taken out") if report.decisions else ("◇ only here", "◇ only here")  # noqa: RUF001
        return there if pair.before is None else gone
    path = pair.part.path
    if any(a.path == path or a.path.startswith(f"{path}.") for a in report.adjustments):
        return "◇ follows"
    return "◇ differs" if _differs(pair.before, pair.after) else ""


def _differs(before: Part, after: Part) -> bool:
    def seen(part: Part) -> tuple[Any, ...]:
        return part.path, part.type_name, part.output, part.params, part.macs

    return seen(before) != seen(after)


def stage_bars(stages: Sequence[Stage]) -> list[Bars]:
    """Give MACs and parameters by stage."""
    return [
        make_bars(
            f"{words} of each stage.",
            [Quantities(stage.name, stage.total("before", what), stage.total("after", what)) for stage in stages],
            quantity,
        )
        for words, what in (("MACs", "macs"), ("Parameters", "params"))
    ]
