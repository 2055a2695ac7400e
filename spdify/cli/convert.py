"""`spdify convert`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spdify.cli import options as o
from spdify.cli.terminal import output_console, print_json, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.sources import BuildArguments


def convert(
    model: o.Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder to write (default: ./MODEL-RULES, with + between several)."
        ),
    ] = None,
    rules: o.Rules = o.DEFAULT_RULES,
    overrides: o.Set = None,
    budget: o.Budget = None,
    prefer: o.Prefer = "resolution",
    strict: Annotated[bool, typer.Option("--strict", help="Make a refused site an error.")] = False,
    proof: Annotated[
        str, typer.Option(metavar="auto|model|site", help="How far to prove; auto goes by size.")
    ] = "auto",
    init: Annotated[
        str,
        typer.Option(
            metavar="exact|random",
            help="Weights of what is put in: those that keep the function, or random ones, to train from scratch.",
        ),
    ] = "exact",
    width_factor: Annotated[
        float,
        typer.Option(
            metavar="F",
            help="First give layers F times the channels, in multiples of 8 (above 1: exact).",
            rich_help_panel="Scaling",
        ),
    ] = 1.0,
    depth_factor: Annotated[
        float,
        typer.Option(
            metavar="F",
            help="First give stages F times the blocks (above 1: exact).",
            rich_help_panel="Scaling",
        ),
    ] = 1.0,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Whether to write and compare model.onnx.")] = True,
    opset: Annotated[int | None, typer.Option(metavar="N", help="ONNX opset (default: 20).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle in the output folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its cost; prove and write nothing.")
    ] = False,
    pretrained: o.Pretrained = False,
    checkpoint: o.Checkpoint = None,
    num_classes: o.NumClasses = None,
    in_chans: o.InChans = None,
    model_kwargs: o.ModelKwargs = None,
    input_size: o.InputSize = None,
    seed: o.Seed = 0,
    reparameterize: o.Reparameterize = False,
    trust_checkpoint: o.TrustCheckpoint = False,
    code: o.Code = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """Convert a model, prove that it computes the same, and write checkpoint, ONNX and report to a folder.

    Exit codes: 0 done, 1 error, 2 usage, 3 a check failed, 4 nothing to convert, 130 interrupted,
    143 terminated.
    """
    with steps() as step:
        step("loading PyTorch")
        from spdify.bundle import check_output
        from spdify.cli.render import render_conversion
        from spdify.errors import UsageError
        from spdify.exporting import OnnxOptions
        from spdify.pipeline import convert as convert_model

        build = o.build_arguments(
            pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
            model_kwargs=model_kwargs, input_size=input_size, seed=seed,
            reparameterize=reparameterize,
            trust_checkpoint=trust_checkpoint,
        )  # fmt: skip
        onnx_options = OnnxOptions(seed=seed) if opset is None else OnnxOptions(opset=opset, seed=seed)
        if dry_run and (init, width_factor, depth_factor) != ("exact", 1, 1):
            raise UsageError(
                "cannot plan --init, --width-factor or --depth-factor without doing it",
                hint="Leave out --dry-run, or these: a dry run shows the rules' plan for the model as it is.",
            )
        folder = output or default_output(model, rules, budget=bool(budget))
        if not dry_run:
            check_output(folder, overwrite=overwrite)
            conversion = convert_model(
                model, rules=rules, overrides=overrides or (), code=code, proof=proof, init=init,
                width_factor=width_factor, depth_factor=depth_factor, budget=budget or (), prefer=prefer, strict=strict,
                command=shlex.join(["spdify", *sys.argv[1:]]), progress=step, **build,
            )  # fmt: skip
            step("writing, with ONNX" if onnx else "writing")
            record = conversion.save(folder, onnx=onnx, options=onnx_options, overwrite=overwrite)
    if dry_run:
        _dry_run(model, rules, overrides, budget or (), prefer, build, code, strict=strict, as_json=as_json)
    elif as_json:
        print_json({"folder": str(folder), "report": conversion.report, "onnx": record.onnx})
    else:
        render_conversion(output_console(), conversion.report, record, folder)


def _dry_run(
    model: str,
    rules: list[str],
    overrides: list[str] | None,
    budget: Sequence[str],
    prefer: str,
    build: BuildArguments,
    code: str | None,
    *,
    strict: bool,
    as_json: bool,
) -> None:
    """Show what a conversion would do."""
    from spdify.cli.render import render_report
    from spdify.errors import NothingToConvertError, RefusedError
    from spdify.pipeline import report as make_report

    with steps() as step:
        step("planning")
        planned = make_report(
            model,
            rules=rules,
            overrides=overrides or (),
            budget=budget,
            prefer=prefer,
            code=code,
            stored=False,
            **build,
        )
    if as_json:
        print_json(planned)
    else:
        render_report(output_console(), planned)
        output_console().print("Dry run: nothing was proved, nothing was written.")
    refused = [d.site.name for d in planned.decisions if d.action == "refused"]
    if strict and refused:
        raise RefusedError(
            f"cannot convert {planned.model} strictly: {len(refused)} sites refused: {', '.join(refused)}"
        )
    if not any(d.action == "applied" for d in planned.decisions):
        raise NothingToConvertError(f"nothing to convert in {planned.model} with {planned.rulebook}")


def default_output(model: str, rules: Sequence[str], *, budget: bool = False) -> Path:
    """Give `./<model>-<rulebook>`, with `+` between several; for a bundle, its folder's name in front.

    With a budget, the name says that not all of the rules' forms are there.
    """
    from spdify.bundle import is_bundle
    from spdify.sources import parse_spec

    name = Path(model).resolve().name if is_bundle(model) else parse_spec(model).name
    return Path(f"{name}-{'+'.join(Path(book).stem for book in rules)}{'-budget' if budget else ''}")
