"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spdify.records import BenchRecord, Call, Evaluation, Inputs, TrainingResult

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
ROUNDS_UP = 0.99995  # four digits of what lies between this and 1 show 1.000


def quantity(number: float, unit: str = "") -> str:
    """Give a number with a decimal prefix and four digits: 25.56 M, 4.089 G; small whole numbers as they are."""
    for step, prefix in _STEPS:
        if abs(number) >= ROUNDS_UP * step:
            return f"{number / step:.4g} {prefix}{unit}"
    return f"{number:.0f}{f' {unit}' if unit else ''}"


def change(before: float, after: float) -> str:
    """Give a relative change in percent, with its sign."""
    if before == after:
        return "±0%"
    if not before:
        return "new"
    percent = 100 * (after - before) / before
    return f"{percent:+.1f}%" if abs(percent) >= 0.05 else f"{percent:+.2g}%"  # noqa: PLR2004 - what one digit shows


def percent(share: float) -> str:
    """Give a share in percent, with three digits: 25%, 73.5%."""
    return f"{100 * share:.3g}%"


def shape(calls: tuple[Call, ...]) -> str:
    """Give the shapes of the first call without the batch: 64×56×56 → 128×28×28; empty where there is none."""
    if not calls:
        return ""
    return " → ".join("×".join(map(str, side[1:])) for side in (calls[0].input, calls[0].output))


def inputs_text(inputs: Inputs) -> str:
    """Give the shapes of a model's inputs without the batch: 3×224×224; by name where they have names."""
    shapes = ["×".join(map(str, spec.shape[1:])) for spec in inputs.args]
    return ", ".join(shapes + [f"{k} {'×'.join(map(str, v.shape[1:]))}" for k, v in inputs.kwargs.items()])


def evaluation_words(found: Evaluation, split: str) -> str:
    """Say how well a classifier does on a split."""
    return (
        f"{found.images:,} {split} images: top-1 {found.top1:.2%}, top-5 {found.top5:.2%}, loss {found.loss:.4f} nats, "
        f"calibration error {found.calibration_error:.4f}"
    )


def chosen_words(result: TrainingResult) -> str:
    """Say which epoch was taken, and why."""
    chosen = "best on the validation images" if result.chosen_by == "validation" else "the last one"
    return f"epoch {result.best_epoch} ({chosen})"


def bench_words(record: BenchRecord) -> str:
    """Say how a network was timed: ONNX Runtime on cpu, 1 thread, batch 1, 3×224×224."""
    backend = "ONNX Runtime" if record.backend == "ort" else "PyTorch"
    parts = [f"{backend} on {record.device}", f"{record.threads} thread{'s' * (record.threads != 1)}"]
    parts += [f"batch {record.batch}", inputs_text(record.inputs)]
    parts += ["channels last"] * record.channels_last + ["torch.compile"] * record.compiled
    return ", ".join(parts)
