"""`spdify inspect` and `spdify report`: looking without changing."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from spdify.cli import options as o
from spdify.cli.terminal import json_text, output_console, print_json, steps
from spdify.errors import printable


def inspect(
    model: o.Model,
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
    """List every place where a model downsamples, and what is left alone and why."""
    with steps() as step:
        step("loading PyTorch")
        from spdify.cli.render import render_inspection
        from spdify.pipeline import inspect as inspect_model

        build = o.build_arguments(
            pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
            model_kwargs=model_kwargs, input_size=input_size, seed=seed,
            reparameterize=reparameterize,
            trust_checkpoint=trust_checkpoint,
        )  # fmt: skip
        step("finding the sites")
        found = inspect_model(model, code=code, **build)
    if as_json:
        print_json(found)
    else:
        render_inspection(output_console(), found)


def report(
    model: o.Model,
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="Compare with this model or folder instead.")
    ] = None,
    rules: o.Rules = o.DEFAULT_RULES,
    overrides: o.Set = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=o.SAYING)] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Make a page to look at in a browser.", rich_help_panel=o.SAYING)
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead.", rich_help_panel=o.SAYING),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.", rich_help_panel=o.SAYING)] = False,
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
    """Compare parameters, MACs, FLOPs, activation memory and file size before and after conversion.

    MODEL alone is compared with its conversion (not proved here); a converted folder gives its own report; two models
    are compared in total and block by block. With -o, Markdown is written unless --html or --json is given.
    """
    with steps() as step:
        step("loading PyTorch")
        from spdify.bundle import check_file, is_bundle, read_record, write_text
        from spdify.cli.render import render_report
        from spdify.errors import UsageError
        from spdify.pipeline import report as make_report
        from spdify.reporting import report_markdown, report_page

        wanted = [name for name, there in (("--json", as_json), ("--markdown", markdown), ("--html", html)) if there]
        if len(wanted) > 1:
            raise UsageError(f"cannot print both {' and '.join(wanted)}", hint="Leave out all but one.")
        if output is not None:
            check_file(output, overwrite=overwrite)
        build = o.build_arguments(
            pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
            model_kwargs=model_kwargs, input_size=input_size, seed=seed,
            reparameterize=reparameterize,
            trust_checkpoint=trust_checkpoint,
        )  # fmt: skip
        step("comparing")
        made = make_report(
            model, other, rules=rules, overrides=overrides or (), code=code,
            command=shlex.join(["spdify", *sys.argv[1:]]), **build,
        )  # fmt: skip
        text = ""
        if html:
            record = read_record(Path(model)) if other is None and is_bundle(model) else None
            text = report_page(made, record)
        elif markdown or (output is not None and not as_json):
            text = printable(report_markdown(made))
    if output is not None:
        write_text(output, text or json_text(made) + "\n", overwrite=overwrite)
    elif as_json:
        print_json(made)
    elif text:
        typer.echo(text, nl=False)
    else:
        render_report(output_console(), made)
