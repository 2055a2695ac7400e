"""The commands. Each parses, makes one call of the API and renders what comes back."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spdify import __version__
from spdify.cli import options as o
from spdify.cli.boundary import SpdifyGroup
from spdify.cli.rules import rules_app
from spdify.cli.terminal import output_console, steps

app = typer.Typer(
    cls=SpdifyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Rewrite the downsampling of a trained CNN into SPD-Conv, keep the function it has learned, and prove it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rules_app, name="rules")


def main() -> None:
    """Run the command line."""
    app(prog_name="spdify")


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        typer.echo(f"spdify {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def convert(
    model: o.Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write (default: ./MODEL-RULES).")
    ] = None,
    rules: o.Rules = "spd",
    overrides: o.Set = None,
    strict: Annotated[bool, typer.Option("--strict", help="Make a refused site an error.")] = False,
    proof: Annotated[str, typer.Option(metavar="auto|model|site", help="How far to prove; auto goes by size.")] = "auto",
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Whether to write and compare model.onnx.")] = True,
    opset: Annotated[int | None, typer.Option(metavar="N", help="ONNX opset (default: 20).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost; prove and write nothing.")] = False,
    pretrained: o.Pretrained = False,
    checkpoint: o.Checkpoint = None,
    num_classes: o.NumClasses = None,
    in_chans: o.InChans = None,
    model_kwargs: o.ModelKwargs = None,
    input_size: o.InputSize = None,
    seed: o.Seed = 0,
    code: o.Code = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """Convert a model, prove that it computes the same, and write checkpoint, ONNX and report to a folder.

    Exit codes: 0 done, 1 error, 2 usage, 3 a check failed, 4 nothing to convert, 130 interrupted.
    """
    from spdify.bundle import check_output
    from spdify.cli.render import render_conversion
    from spdify.errors import UsageError
    from spdify.exporting import OnnxOptions
    from spdify.pipeline import convert as convert_model
    from spdify.verification import PROOF_LEVELS

    if proof not in PROOF_LEVELS:
        raise UsageError(f"cannot prove at level {proof!r}: expected one of {', '.join(PROOF_LEVELS)}")
    build = o.build_options(
        pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
        model_kwargs=model_kwargs, input_size=input_size, seed=seed,
    )  # fmt: skip
    onnx_options = OnnxOptions(seed=seed) if opset is None else OnnxOptions(opset=opset, seed=seed)
    if dry_run:
        _dry_run(model, rules, overrides, build, code, strict=strict, as_json=as_json)
        return
    folder = output or default_output(model, rules)
    check_output(folder, overwrite=overwrite)
    with steps() as step:
        conversion = convert_model(
            model, rules=rules, overrides=overrides or (), options=build, code=code, proof=proof, strict=strict,
            command=shlex.join(["spdify", *sys.argv[1:]]), progress=step,
        )  # fmt: skip
        step("writing, with ONNX" if onnx else "writing")
        record = conversion.save(folder, onnx=onnx, options=onnx_options, overwrite=overwrite)
    if as_json:
        _print_json({"folder": str(folder), "report": conversion.report, "onnx": record.onnx})
    else:
        render_conversion(output_console(), conversion.report, record, folder)


def _dry_run(  # noqa: PLR0913 - passed through
    model: str, rules: str, overrides: list[str] | None, build: Any, code: str | None, *, strict: bool, as_json: bool  # noqa: ANN401
) -> None:
    """Show what a conversion would do."""
    from spdify.cli.render import render_report
    from spdify.errors import NothingToConvertError, RefusedError
    from spdify.pipeline import report as make_report

    with steps() as step:
        step("planning")
        planned = make_report(model, rules=rules, overrides=overrides or (), options=build, code=code, stored=False)
    if as_json:
        _print_json(planned)
    else:
        render_report(output_console(), planned)
        output_console().print("Dry run: nothing was proved, nothing was written.")
    refused = [d.site.name for d in planned.decisions if d.action == "refused"]
    if strict and refused:
        raise RefusedError(f"cannot convert {planned.model} strictly: {len(refused)} sites refused: {', '.join(refused)}")
    if not any(d.action == "applied" for d in planned.decisions):
        raise NothingToConvertError(f"nothing to convert in {planned.model} with {planned.rulebook}")


def default_output(model: str, rules: str) -> Path:
    """Give `./<model>-<rulebook>`; for a bundle, its folder's name with the rulebook's behind it."""
    from spdify.bundle import is_bundle
    from spdify.sources import parse_spec

    name = Path(model).resolve().name if is_bundle(model) else parse_spec(model).name
    return Path(f"{name}-{Path(rules).stem}")


@app.command()
def inspect(
    model: o.Model,
    pretrained: o.Pretrained = False,
    checkpoint: o.Checkpoint = None,
    num_classes: o.NumClasses = None,
    in_chans: o.InChans = None,
    model_kwargs: o.ModelKwargs = None,
    input_size: o.InputSize = None,
    seed: o.Seed = 0,
    code: o.Code = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """List every place where a model downsamples, and what is left alone and why."""
    from spdify.cli.render import render_inspection
    from spdify.pipeline import inspect as inspect_model

    build = o.build_options(
        pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
        model_kwargs=model_kwargs, input_size=input_size, seed=seed,
    )  # fmt: skip
    with steps() as step:
        step("finding the sites")
        found = inspect_model(model, options=build, code=code)
    if as_json:
        _print_json(found)
    else:
        render_inspection(output_console(), found)


@app.command()
def report(
    model: o.Model,
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="Compare with this model or folder instead.")] = None,
    rules: o.Rules = "spd",
    overrides: o.Set = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=o.SAYING)] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead.", rich_help_panel=o.SAYING)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.", rich_help_panel=o.SAYING)] = False,
    pretrained: o.Pretrained = False,
    checkpoint: o.Checkpoint = None,
    num_classes: o.NumClasses = None,
    in_chans: o.InChans = None,
    model_kwargs: o.ModelKwargs = None,
    input_size: o.InputSize = None,
    seed: o.Seed = 0,
    code: o.Code = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """Compare parameters, MACs, FLOPs, activation memory and file size before and after conversion.

    MODEL alone is compared with its conversion (not proved here); a converted folder gives its own report; two models
    are compared in total. With -o, Markdown is written unless --json is given.
    """
    from spdify.bundle import write_text
    from spdify.cli.render import render_report
    from spdify.errors import UsageError
    from spdify.pipeline import report as make_report
    from spdify.reporting import report_markdown

    if as_json and markdown:
        raise UsageError("cannot print both --json and --markdown", hint="Leave out one of the two.")
    build = o.build_options(
        pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
        model_kwargs=model_kwargs, input_size=input_size, seed=seed,
    )  # fmt: skip
    with steps() as step:
        step("comparing")
        made = make_report(model, other, rules=rules, overrides=overrides or (), options=build, code=code)
    if output is not None:
        write_text(output, made.model_dump_json(indent=2) if as_json else report_markdown(made), overwrite=overwrite)
    elif as_json:
        _print_json(made)
    elif markdown:
        typer.echo(report_markdown(made), nl=False)
    else:
        render_report(output_console(), made)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="[bundle|plan|report|inspection]", help="Which file.")] = "bundle",
) -> None:
    """Print the JSON Schema of spdify.json (bundle), of a plan, of report.json, or of `inspect --json`."""
    from spdify.errors import UsageError
    from spdify.records import BundleRecord, Plan, Record, Report
    from spdify.reporting import Inspection

    kinds: dict[str, type[Record]] = {"bundle": BundleRecord, "plan": Plan, "report": Report, "inspection": Inspection}
    if kind not in kinds:
        raise UsageError(f"cannot print the schema of {kind!r}: expected one of {', '.join(kinds)}")
    _print_json(kinds[kind].model_json_schema())


def _print_json(value: Any) -> None:  # noqa: ANN401 - a record, or a dict of records
    """Print JSON on stdout and nothing else."""
    from pydantic_core import to_json

    typer.echo(to_json(value, indent=2).decode())
