"""The model card: what the network is and how to use it, for people who open the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spdify.records import BundleRecord, Report


def model_card(record: BundleRecord, report: Report) -> str:
    """Give the text of `README.md`, with the front matter that model hubs read."""
    source = record.source
    applied = [d for plan in record.plans for d in plan.applied]
    rulebooks = ", ".join(plan.rulebook for plan in record.plans)
    exact = sum(d.claim is not None and d.claim.value == "exact" for d in applied)
    load = 'model = spdify.load("path/to/this/folder")'
    if not source.is_registry:
        load = f'model = spdify.load("path/to/this/folder", model=factory())  # the original: {source.spec}'
    lines = [
        "---",
        "library_name: spdify",
        "tags: [spd-conv, space-to-depth]",
        "---",
        "",
        f"# {report.model}",
        "",
        f"`{source.spec}` (weights: {source.weights}), converted by spdify with {rulebooks}:",
        f"{len(applied)} of its downsampling sites replaced, {exact} of them exactly.",
        "",
        f"Parameters {report.before.params:,} → {report.after.params:,},",
        f"MACs {report.before.macs:,} → {report.after.macs:,} at batch 1. Proof level: {record.proof}.",
        "",
        "```python",
        "import spdify",
        "",
        load,
        "```",
        "",
        "- `model.safetensors`: weights",
        "- `spdify.json`: source, plan, checks",
        "- `report.md`, `report.json`: what changed and what it costs",
    ]
    if record.onnx is not None:
        batch = "any batch size" if record.onnx.dynamic_batch else f"fixed batch size ({record.onnx.note})"
        failed = any(check.outcome == "failed" for check in record.onnx.checks)
        verdict = "; **does not pass its checks: do not use it**" if failed else ""
        lines.append(f"- `{record.onnx.file}`: ONNX, opset {record.onnx.opset}, {batch}{verdict}")
    if record.command:
        lines += ["", "Made by:", "", "```", record.command, "```"]
    return "\n".join(lines) + "\n"
