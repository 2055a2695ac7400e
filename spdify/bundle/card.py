"""The model card: what the network is and how to use it, for people who open the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spdify.records import BundleRecord, Calibration, Report, Training


def _others(record: BundleRecord) -> str:
    """Count the sites that the last conversion left."""
    last = next(plan for plan in reversed(record.plans) if plan.decisions)
    return f"{len(last.with_action('kept'))} kept, {len(last.with_action('refused'))} refused"


def _origin(record: BundleRecord) -> list[str]:
    """Say what the network was and what was done to it."""
    source = record.source
    applied = [d for plan in record.plans for d in plan.applied]
    if not applied:
        return [f"`{source.spec}` (weights: {source.weights}), not converted."]
    rulebooks = ", ".join(plan.rulebook for plan in record.plans)
    exact = sum(d.claim is not None and d.claim.value == "exact" for d in applied)
    return [
        f"`{source.spec}` (weights: {source.weights}), converted by spdify with {rulebooks}:",
        f"{len(applied)} of its downsampling sites replaced, {exact} of them exactly; {_others(record)}.",
    ]


def _training(training: Training) -> list[str]:
    """Say what it was trained on, and how well it does."""
    if not training.epoch:
        return []
    data, recipe = training.data, training.recipe
    averaged = ", averaged weights" if training.averaged else ""
    lines = [
        f"Trained on {data.name} ({data.images['train']:,} images, {len(data.classes)} classes) by the recipe",
        f"{recipe.name}, epoch {training.epoch} of {recipe.epochs}, seed {training.seed}{averaged}.",
    ]
    for split, found in (("validation", training.validation), ("test", training.test)):
        if found is not None:
            lines += [
                f"On {found.images:,} {split} images: top-1 {found.top1:.2%}, top-5 {found.top5:.2%},",
                f"loss {found.loss:.4f}, expected calibration error {found.calibration_error:.4f}.",
            ]
    lines.append("It no longer computes what the original does: the proofs in `report.md` are of the conversion.")
    return ["", *lines]


def _calibration(calibration: Calibration) -> list[str]:
    """Say what was calibrated, and how far from the original that is."""
    done = [f"{len(calibration.pools)} pools fitted"] if calibration.pools else []
    done += [f"statistics of {calibration.norms} batch norms taken anew"] if calibration.norms else []
    return [
        "",
        f"Calibrated on {calibration.images:,} images of {calibration.data}, without labels: {', '.join(done)}.",
        f"Relative error of the outputs against the original: {calibration.before:.2g} before,",
        f"{calibration.after:.2g} after.",
    ]


def _proof(record: BundleRecord) -> str:
    """Say what was proved, in a sentence."""
    if record.proof == "none":
        return "Nothing was converted, so nothing was to be proved."
    if record.proof == "site":
        return "Every site was proved on its own in float64; the network as a whole was not run in float64."
    away = next((c.value for c in record.checks if c.name == "distance to the original"), None)
    if away is not None:
        return f"Some sites are approximate: on random weights the output is {away:.2g} (relative) from the original's."
    return "The network as a whole was proved to compute the same, in float64 with random norms, see `report.md`."


def model_card(record: BundleRecord, report: Report) -> str:
    """Give the text of `README.md`, with the front matter that model hubs read."""
    source = record.source
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
        *_origin(record),
        "",
        f"{'Last step: parameters' if len(record.plans) > 1 else 'Parameters'} {report.before.params:,} →",
        f"{report.after.params:,}, MACs {report.before.macs:,} → {report.after.macs:,} at batch 1.",
        _proof(record),
        *(line for training in record.trainings for line in _training(training)),
        *(line for calibration in record.calibrations for line in _calibration(calibration)),
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
        "- `report.html`, `report.md`, `report.json`: what changed and what it costs",
    ]
    if record.onnx is not None and (inputs := record.example_inputs) is not None:
        batch = "any batch size" if record.onnx.dynamic_batch else f"fixed batch size ({record.onnx.note})"
        failed = any(check.outcome == "failed" for check in record.onnx.checks)
        verdict = "; **does not pass its checks: do not use it**" if failed else ""
        sizes = ", ".join("×".join(map(str, spec.shape[1:])) for spec in inputs.args)
        fixed = f", input {sizes} without the batch" if sizes else ""
        lines.append(f"- `{record.onnx.file}`: ONNX, opset {record.onnx.opset}, {batch}{fixed}{verdict}")
    if record.command:
        lines += ["", "Made by:", "", "```", record.command, "```"]
    return "\n".join(lines) + "\n"
