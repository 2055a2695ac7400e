"""The model card: what the network is and how to use it, for people who open the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spdify.records import BundleRecord, Report


def _others(record: BundleRecord) -> str:
    """Count the sites that the last plan left."""
    last = record.plans[-1]
    return f"{len(last.with_action('kept'))} kept, {len(last.with_action('refused'))} refused"


def _proof(record: BundleRecord) -> str:
    """Say what was proved, in a sentence."""
    if record.proof == "site":
        return "Every site was proved on its own in float64; the network as a whole was not run in float64."
    away = next((c.value for c in record.checks if c.name == "distance to the original"), None)
    if away is not None:
        return f"Some sites are approximate: on random weights the output is {away:.2g} (relative) from the original's."
    return "The network as a whole was proved to compute the same, in float64 with random norms, see `report.md`."


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
        f"{len(applied)} of its downsampling sites replaced, {exact} of them exactly; {_others(record)}.",
        "",
        f"{'Last step: parameters' if len(record.plans) > 1 else 'Parameters'} {report.before.params:,} →",
        f"{report.after.params:,}, MACs {report.before.macs:,} → {report.after.macs:,} at batch 1.",
        _proof(record),
        "",
        "```python",
        "import spdify",
        "",
        load,
        "model.train()  # it comes in eval mode",
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
        sizes = ", ".join("×".join(map(str, spec.shape[1:])) for spec in record.plans[-1].inputs.args)
        fixed = f", input {sizes} without the batch" if sizes else ""
        lines.append(f"- `{record.onnx.file}`: ONNX, opset {record.onnx.opset}, {batch}{fixed}{verdict}")
    if record.command:
        lines += ["", "Made by:", "", "```", record.command, "```"]
    return "\n".join(lines) + "\n"
