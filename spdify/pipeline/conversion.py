"""A finished conversion, and saving it."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from spdify.bundle import staged_folder, write_bundle
from spdify.errors import CheckFailedError
from spdify.exporting import UNVERIFIED, OnnxOptions, describe, export_onnx
from spdify.records import BundleRecord, Calibration, OnnxRecord, Origin, Plan, Report, Source, Training
from spdify.reporting import report_files
from spdify.sources import example_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spdify.pipeline.opening import Opened
    from spdify.records import Check

PACKAGES = ("spdify", "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "safetensors")


@dataclass
class Conversion:
    """A converted model with everything that is known about it.

    Attributes:
        model: The converted network, in eval mode; the caller's own was not changed.
        plan: What was done at every site.
        checks: What was proved, and what was not.
        report: What changed and what it costs.
        source: Where the original came from.
        seed: Of all random numbers in the proofs.
        command: Command line that asked for it, if one did.
        original: The model before. At proof level `site`, both share the memory of what is the same in both, until one
            is written to (copy on write): neither ever sees what is done to the other.
        earlier_plans: Plans that led from the source to the original.
        trainings: What the original was trained on since it was built.
        calibrations: How it was calibrated since.
        perturbed: Random weights of the converted network, for comparing exported forms.
    """

    model: nn.Module
    plan: Plan
    checks: tuple[Check, ...]
    report: Report
    source: Source
    seed: int
    original: nn.Module
    command: str = ""
    earlier_plans: tuple[Plan, ...] = ()
    trainings: tuple[Training, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    perturbed: dict[str, Tensor] = field(default_factory=dict)

    def save(
        self, folder: str | Path, *, onnx: bool = True, options: OnnxOptions | None = None, overwrite: bool = False
    ) -> BundleRecord:
        """Write the bundle: weights, plan, report, model card and ONNX.

        Args:
            folder: Where to; it appears when all is written, and not before.
            onnx: Whether to export and compare `model.onnx`.
            options: Opset and tolerance of the ONNX file.
            overwrite: Whether what is in `folder` may be replaced.

        Returns:
            Content of `spdify.json`.

        Raises:
            BundleError: The folder cannot be written.
            ExportError: The model cannot be exported to ONNX; nothing is written.
            CheckFailedError: The ONNX file does not compute what the model computes; the bundle is there, with the file
                under the name `model.unverified.onnx`.
        """
        with staged_folder(Path(folder), overwrite=overwrite) as stage:
            exported = self._export(stage, options) if onnx else None
            record = self.record(exported)
            report = self.report.model_copy(update={"checks": record.checks + (exported.checks if exported else ())})
            write_bundle(
                stage, state=self.model.state_dict(), record=record, report=report, pages=report_files(report, record)
            )
        require_verified(exported, Path(folder))
        return record

    def record(self, onnx: OnnxRecord | None = None) -> BundleRecord:
        """Give the content of `spdify.json`."""
        return BundleRecord(
            source=self.source,
            plans=(*self.earlier_plans, self.plan),
            seed=self.seed,
            command=self.command,
            versions=versions(),
            proof=self.report.proof,
            checks=self.checks,
            onnx=onnx,
            trainings=self.trainings,
            calibrations=self.calibrations,
        )

    def _export(self, folder: Path, options: OnnxOptions | None) -> OnnxRecord:
        return export_onnx(
            self.model,
            folder,
            make_inputs=lambda batch: example_inputs(self.plan.inputs, batch=batch, seed=self.seed),
            original=self.original,
            perturbed=self.perturbed or None,
            options=replace(options or OnnxOptions(seed=self.seed), metadata=self._described()),
        )

    def _described(self) -> dict[str, str]:
        """Say in the file how images become inputs, where that is known."""
        record = self.record()
        return describe(record.preprocessing, record.classes)


def require_verified(exported: OnnxRecord | None, folder: Path) -> None:
    """Insist that an ONNX file that was written passes its checks.

    Raises:
        CheckFailedError: It does not, or nothing could be compared: both leave the file unproved.
    """
    if exported is None or exported.file != UNVERIFIED:
        return
    bad = [check for check in exported.checks if check.outcome != "passed"]
    raise CheckFailedError(
        f"the ONNX file does not pass: {'; '.join(f'{c.name}: {c.detail or c.value}' for c in bad)}",
        hint=f"The bundle is written; the file is kept as {folder / exported.file} and must not be used.",
    )


def origin_of(*opened: Opened, command: str, seed: int) -> Origin:
    """Say how a report on models came about.

    Args:
        opened: The model, or both that are compared.
        command: Command lines, one per line.
        seed: Of all random numbers.
    """
    return Origin(
        sources=tuple(one.source for one in opened), inputs=tuple(one.inputs for one in opened),
        later=tuple(_later(one.record) for one in opened), command=command, seed=seed, versions=versions(),
    )  # fmt: skip


def _later(record: BundleRecord | None) -> str:
    """Say what became of a network before it was looked at."""
    if record is None:
        return ""
    words = [f"trained on {t.data.name}, epoch {t.epoch} of {t.recipe.epochs}" for t in record.trainings if t.epoch]
    return ", ".join([*words, *(f"calibrated on {made.data}" for made in record.calibrations)])


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that a result may depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
