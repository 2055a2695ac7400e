"""The commands put together, and what holds for all of them."""

from __future__ import annotations

from inspect import getdoc
from typing import Annotated

import typer

from spdify import __version__
from spdify.cli import options as o
from spdify.cli.bench import bench
from spdify.cli.boundary import SpdifyGroup
from spdify.cli.convert import convert
from spdify.cli.export import export
from spdify.cli.finetune import finetune
from spdify.cli.look import inspect, report
from spdify.cli.measure import calibrate, evaluate
from spdify.cli.rules import rules_app
from spdify.cli.signals import take_signals
from spdify.cli.study import study
from spdify.cli.terminal import print_json, take_streams
from spdify.cli.zoo import zoo_app

app = typer.Typer(
    cls=SpdifyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Rewrite the downsampling of a trained CNN into SPD-Conv, keep the function it has learned, and prove it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(convert)
app.command()(finetune)
app.command()(study)
app.command()(evaluate)
app.command()(calibrate)
app.command()(export)
app.command()(bench)
app.command()(inspect)
app.command()(report)
app.add_typer(rules_app, name="rules")
app.add_typer(zoo_app, name="zoo")


def run() -> None:
    """Run the command that the arguments name."""
    take_signals()
    take_streams()
    app(prog_name="spdify")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"spdify {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def schema(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[bundle|plan|report|inspection|zoo|run|result|study|evaluation|export|bench]", help="Which file."
        ),
    ] = "bundle",
    debug: o.Debug = False,
) -> None:
    """Print the JSON Schema of what spdify writes.

    spdify.json (bundle), a plan, report.json, `inspect --json`, a sweep's line (zoo); of a training run.json (run),
    result.json (result) and study.json (study); `evaluate --json` (evaluation); export.json (export);
    `bench --json` (bench).
    """
    from spdify.errors import UsageError
    from spdify.pipeline.studying import Study
    from spdify.records import (
        BenchRecord,
        BundleRecord,
        ExportRecord,
        MeasuredModel,
        Plan,
        Record,
        Report,
        TrainingResult,
        TrainingRun,
    )
    from spdify.reporting import Inspection
    from spdify.zoo.records import ZooRecord

    kinds: dict[str, type[Record]] = {
        "bundle": BundleRecord, "plan": Plan, "report": Report, "inspection": Inspection, "zoo": ZooRecord,
        "run": TrainingRun, "result": TrainingResult, "study": Study, "evaluation": MeasuredModel,
        "export": ExportRecord, "bench": BenchRecord,
    }  # fmt: skip
    if kind not in kinds:
        raise UsageError(
            f"cannot print the schema of {kind!r}: there is none", hint=f"Expected one of {', '.join(kinds)}."
        )
    print_json(kinds[kind].model_json_schema())


def _let_the_terminal_break_lines() -> None:
    """Join the lines of each command's description: Typer keeps the breaks that the source has."""
    for part in (app, rules_app, zoo_app):
        for command in part.registered_commands:
            paragraphs = (getdoc(command.callback) or "").split("\n\n")
            command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


_let_the_terminal_break_lines()
