"""The network that a training begins with: opened or converted, with a classifier for the data, as a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from spdify.bundle import is_bundle, read_record, read_report, staged_folder, write_bundle
from spdify.engine import apply_lazily, plan_classifier
from spdify.errors import BundleError, UsageError
from spdify.exporting import OnnxOptions, describe, export_onnx
from spdify.graph.census import take_census
from spdify.graph.parts import shown_parts
from spdify.pipeline.conversion import origin_of, versions
from spdify.pipeline.converting import ConversionSettings, convert_opened
from spdify.pipeline.opening import open_model
from spdify.records import BundleRecord, Inputs, InputSpec, Report
from spdify.reporting import measure, report_files
from spdify.rulebook import book_names
from spdify.sources import example_inputs, parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.pipeline.opening import Opened
    from spdify.records import Plan, Training
    from spdify.sources import BuildArguments

NO_RULES = "none"


@dataclass(frozen=True)
class Start:
    """A network ready to be trained.

    Attributes:
        network: In eval mode on the CPU.
        record: What its bundle says.
        report: Likewise.
        inputs: Example inputs at batch 1.
        notes: What was done that the caller may not expect, in words.
    """

    network: nn.Module
    record: BundleRecord
    report: Report
    inputs: Inputs
    notes: tuple[str, ...] = ()


def make_start(  # noqa: PLR0913 - what to build, and how
    model: str | Path | nn.Module,
    *,
    classes: int,
    size: tuple[int, ...] | None,
    settings: ConversionSettings,
    build: BuildArguments,
    code: str | None = None,
    command: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Start:
    """Open a model, give it the classifier that the data needs, and convert it; a bundle is taken as it stands.

    Args:
        model: A source, a bundle's folder or a module.
        classes: Number of classes.
        size: C,H,W of the inputs; None for the model's own.
        settings: How to convert; with the rules `none` it is not.
        build: How to build a source.
        code: For a bundle of somebody's own network, the source that builds the original.
        command: Command line to record.
        progress: Told, in words, what is being done.

    Raises:
        SpdifyError: The model cannot be opened, is no classifier, does not take inputs of this size, or cannot be
            converted.
    """
    progress("building the model")
    if not isinstance(model, nn.Module) and is_bundle(model):
        opened = open_model(model, code=code, input_size=size)
        return _from_bundle(opened, Path(model), classes, progress)
    arguments: BuildArguments = {**build, "input_size": size}
    fresh = not build.get("pretrained") and build.get("checkpoint") is None
    if fresh and isinstance(model, str) and parse_spec(model).kind != "code":
        arguments["num_classes"] = arguments.get("num_classes") or classes
    opened = open_model(model, code=code, **arguments)
    opened, notes = _with_classifier(opened, classes, settings.seed)
    books = book_names(settings.rules)
    if books == (NO_RULES,):
        record = _plain_record(opened, settings.seed, command)
        report = _plain_report(opened).model_copy(
            update={"origin": origin_of(opened, command=command, seed=settings.seed)}
        )
        return Start(opened.model, record, report, opened.inputs, notes)
    if NO_RULES in books:
        raise UsageError(
            "cannot convert by the rules none and others", hint="Give --rules none alone, or leave it out."
        )
    conversion = convert_opened(opened, settings, command=command, progress=progress)
    return Start(conversion.model, conversion.record(), conversion.report, opened.inputs, notes)


def write_trained(  # noqa: PLR0913 - what a bundle holds
    folder: Path,
    start: Start,
    network: nn.Module,
    training: Training,
    *,
    overwrite: bool = False,
    export: Callable[[Path, BundleRecord], BundleRecord] | None = None,
) -> None:
    """Write a bundle of a network after some training.

    Args:
        folder: Where to.
        start: What the training began with.
        network: With the weights to write.
        training: What was done.
        overwrite: Whether a bundle that is there is replaced.
        export: Writes further files into the folder, and gives the record with what it has to say of them.
    """
    record = start.record.model_copy(
        update={"trainings": (*start.record.trainings, training), "onnx": None, "inputs": _inputs(training)}
    )
    with staged_folder(folder, overwrite=overwrite) as stage:
        if export is not None:
            record = export(stage, record)
        write_bundle(
            stage, state=network.state_dict(), record=record, report=start.report,
            pages=report_files(start.report, record),
        )  # fmt: skip


def export_trained(network: nn.Module, folder: Path, record: BundleRecord) -> BundleRecord:
    """Export a network that was trained or calibrated, with how images become its inputs in the file.

    Args:
        network: In eval mode on the CPU.
        folder: Where to.
        record: Of its bundle.

    Returns:
        The record with what was found of the file.

    Raises:
        ExportError: The network cannot be exported.
    """
    inputs = record.example_inputs
    assert inputs is not None  # noqa: S101 - who trains knows what goes in
    exported = export_onnx(
        network, folder, make_inputs=lambda batch: example_inputs(inputs, batch=batch, seed=record.seed),
        options=OnnxOptions(seed=record.seed, metadata=describe(record.preprocessing, record.classes)),
    )  # fmt: skip
    return record.model_copy(update={"onnx": exported})


def read_start(folder: Path, network: nn.Module) -> Start:
    """Give the start of a run again, from its bundle and the network loaded from it.

    Raises:
        BundleError: The bundle cannot be read.
    """
    record, training = _without_last_training(read_record(folder))
    return Start(network, record, read_report(folder), _inputs(training))


def _without_last_training(record: BundleRecord) -> tuple[BundleRecord, Training]:
    if not record.trainings:
        raise BundleError("cannot go on with a run: its start has no training", hint="Start the run anew.")
    return record.model_copy(update={"trainings": record.trainings[:-1]}), record.trainings[-1]


def _inputs(training: Training) -> Inputs:
    return Inputs(args=(InputSpec(shape=(1, *training.preprocessing.input_size)),))


def _with_classifier(opened: Opened, classes: int, seed: int) -> tuple[Opened, tuple[str, ...]]:
    """Give a model the classifier for so many classes, and say so where it had another."""
    plan = plan_classifier(opened.model, opened.inputs, classes, seed=seed)
    if plan is None:
        return opened, ()
    changed = replace(opened, model=apply_lazily(opened.model, plan).eval(), plans=(*opened.plans, plan))
    return changed, (_words(plan),)


def _words(plan: Plan) -> str:
    paths = ", ".join(head.path for head in plan.heads)
    first = plan.heads[0]
    return f"classifier replaced ({paths}): {first.before} outputs before, {first.after} now, with random weights"


def _from_bundle(opened: Opened, folder: Path, classes: int, progress: Callable[[str], None]) -> Start:
    """Take a bundle as it stands; only its classifier may change."""
    progress("looking at its classes")
    record, report = read_record(folder), read_report(folder)
    changed, notes = _with_classifier(opened, classes, record.seed)
    return Start(changed.model, record.model_copy(update={"plans": changed.plans}), report, opened.inputs, notes)


def _plain_record(opened: Opened, seed: int, command: str) -> BundleRecord:
    return BundleRecord(
        source=opened.source, plans=opened.plans, seed=seed, command=command, versions=versions(), proof="none",
        checks=(), inputs=opened.inputs,
    )  # fmt: skip


def _plain_report(opened: Opened) -> Report:
    """Give the report of a network that is not converted: its cost."""
    census = take_census(opened.model, opened.inputs, mode="eval")
    cost, parts = measure(opened.model, census), shown_parts(opened.model, census)
    return Report(
        model=opened.source.name, rulebook=NO_RULES, before=cost, after=cost, sites=(), decisions=(),
        parts_before=parts, parts_after=parts,
    )  # fmt: skip
