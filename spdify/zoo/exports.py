"""Converted models as ONNX files, compared in ONNX Runtime: the cheapest model of each family."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from spdify.engine import apply, exact_part, plan_model
from spdify.errors import ExportError, SpdifyError
from spdify.exporting import UNVERIFIED, OnnxOptions, export_onnx
from spdify.sources import example_inputs
from spdify.zoo.counting import CONVERTED
from spdify.zoo.examine import MAX_MODEL_PROOF_MACS, portable, portable_check, survey_named
from spdify.zoo.records import OnnxAttempt, OnnxFamilyRecord
from spdify.zoo.reduced import prove_reduced, run_reduced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from spdify.records import OnnxRecord
    from spdify.rulebook import Rulebook
    from spdify.zoo.records import OnnxMode, ZooRecord
    from spdify.zoo.reduced import ReducedProof

#: Models of a family that are tried before it is said that its originals do not export either.
MOST_ATTEMPTS = 3


def candidates(records: Iterable[ZooRecord], mode: OnnxMode) -> dict[str, tuple[str, ...]]:
    """Give the models to export, cheapest first, by family; with `all`, each model for itself."""
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for record in records:
        if record.outcome in CONVERTED and record.before is not None and mode != "none":
            groups[record.family if mode == "family" else record.name].append((record.before.macs, record.name))
    return {
        family: tuple(name for _, name in sorted(models)[:MOST_ATTEMPTS]) for family, models in sorted(groups.items())
    }


def export_family(family: str, names: Iterable[str], rulebook: Rulebook, *, seed: int = 0) -> OnnxFamilyRecord:
    """Export models in turn until one passes, or fails where its original does not.

    Args:
        family: Name of the record.
        names: Models, cheapest first.
        rulebook: What to convert by.
        seed: Of weights and inputs.
    """
    attempts: list[OnnxAttempt] = []
    for name in names:
        attempts.append(_attempt(name, rulebook, seed))
        if attempts[-1].outcome != "original fails too":
            break
    return OnnxFamilyRecord(name=family, outcome=attempts[-1].outcome, attempts=tuple(attempts))


def _attempt(name: str, rulebook: Rulebook, seed: int) -> OnnxAttempt:
    try:
        loaded, before = survey_named(name, seed=seed, kinds=rulebook.kinds)
        plan = plan_model(loaded.model, before, rulebook, inputs=loaded.inputs)
        if before.census.total_macs < MAX_MODEL_PROOF_MACS:
            exact = exact_part(plan, before)
            proof = prove_reduced(name, plan, seed=seed, eval_only=before.eval_only, exact=exact)
        else:  # without the proof there are no perturbed weights, which the comparison then says
            proof = run_reduced(name, plan, seed=seed)
        converted = apply(proof.model, proof.plan).eval()
    except Exception as error:  # noqa: BLE001 - told as a failure of this model
        return OnnxAttempt(name=name, outcome="failed", detail=portable(f"before the export: {error}"))
    record = _export(converted, proof, seed, original=proof.model, state=proof.state)
    inputs = proof.inputs.args
    if isinstance(record, str) or record.file == UNVERIFIED:
        original = _export(proof.model.eval(), proof, seed, state=proof.original_state)
        if isinstance(original, str) or original.file == UNVERIFIED:
            detail = f"the original does not export either: {_reason(original)}"
            return OnnxAttempt(name=name, outcome="original fails too", detail=portable(detail), inputs=inputs)
    if isinstance(record, str):
        return OnnxAttempt(name=name, outcome="failed", detail=portable(record), inputs=inputs)
    return OnnxAttempt(
        name=name,
        outcome="failed" if record.file == UNVERIFIED else "passed",
        detail=_reason(record) if record.file == UNVERIFIED else record.note,
        dynamic_batch=record.dynamic_batch,
        inputs=inputs,
        checks=tuple(map(portable_check, record.checks)),
    )


def _export(
    model: nn.Module,
    proof: ReducedProof,
    seed: int,
    *,
    original: nn.Module | None = None,
    state: dict[str, Tensor] | None = None,
) -> OnnxRecord | str:
    """Export and compare, in a folder that is gone afterwards; give the reason where it cannot be exported."""
    own = model.state_dict()
    perturbed = {key: t.to(own[key].dtype) for key, t in state.items()} if state else None
    with tempfile.TemporaryDirectory(prefix="spdify-zoo-") as folder:
        try:
            return export_onnx(
                model,
                Path(folder),
                make_inputs=lambda batch: example_inputs(proof.inputs, batch=batch, seed=seed),
                original=original,
                perturbed=perturbed,
                options=OnnxOptions(seed=seed),
            )
        except ExportError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - the exporter's own faults are as good a reason
            return f"{type(error).__name__}: {error}"


def _reason(record: OnnxRecord | str) -> str:
    if isinstance(record, str):
        return record
    bad = [f"{c.name}: {c.detail or c.value}" for c in record.checks if c.outcome != "passed"]
    return portable("; ".join(bad))


def load_exporter() -> None:
    """Import all that an export needs, so that forked workers have it: some seconds, once."""
    import onnxruntime  # noqa: F401, PLC0415 - for its own sake

    with tempfile.TemporaryDirectory(prefix="spdify-zoo-") as folder:
        tiny = torch.nn.Conv2d(1, 1, 1).eval()
        try:
            torch.onnx.export(tiny, (torch.zeros(1, 1, 4, 4),), Path(folder) / "x.onnx", dynamo=True, verbose=False)
        except Exception as error:
            raise SpdifyError(f"cannot export to ONNX at all: {error}") from error
