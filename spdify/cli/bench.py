"""`spdify bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spdify.cli import options as o
from spdify.cli.terminal import output_console, print_json, steps


def bench(
    model: o.Model,
    forms: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Of original, converted, fused, space-to-depth, released (default: all that the backend has).",
        ),
    ] = None,
    backend: Annotated[str, typer.Option(metavar="torch|ort", help="PyTorch, or ONNX Runtime.")] = "torch",
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads (default: all cores).")] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", min=1, metavar="N", help="Images of one call.")] = 1,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to run.")] = "auto",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Memory format of weights and inputs (torch).")
    ] = False,
    compiled: Annotated[bool, typer.Option("--torchcompile", help="Compile each network (torch).")] = False,
    rounds: Annotated[int, typer.Option(min=3, metavar="N", help="Turns, of a fifth of a second each.")] = 9,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is", help="Weights as they are: what nobody trained folds back (default: moved, as training would)."
        ),
    ] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the ratios.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
    rules: o.Rules = o.DEFAULT_RULES,
    overrides: o.Set = None,
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
    """Time a network before and after conversion, and in the forms that are deployed, in turns in one run.

    The forms take turns (A, B, C, A, B, C, …), so that what else the machine does meets all alike; ratios are to the
    first, the median of the rounds with its quartiles. Nothing is proved here.
    """
    with steps() as step:
        step("loading PyTorch")
        from spdify.bundle import check_file, write_text
        from spdify.cli.render import render_bench
        from spdify.pipeline.benchmarking import BenchSettings
        from spdify.pipeline.benchmarking import bench as measure
        from spdify.reporting.pictures import ratio_bars

        if svg is not None:
            check_file(svg, overwrite=overwrite, option="--svg")
        default = "original,converted,fused,space-to-depth,released" if backend == "ort" else BenchSettings.forms
        chosen = forms or default
        settings = BenchSettings(
            forms=tuple(chosen.split(",")) if isinstance(chosen, str) else chosen, backend=backend, threads=threads,
            batch=batch, device=device, channels_last=channels_last, compiled=compiled, rounds=rounds, as_is=as_is,
            rules=tuple(rules), overrides=tuple(overrides or ()),
        )  # fmt: skip
        build = o.build_arguments(
            pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
            model_kwargs=model_kwargs, input_size=input_size, seed=seed, reparameterize=reparameterize,
            trust_checkpoint=trust_checkpoint,
        )  # fmt: skip
        record = measure(model, settings=settings, code=code, progress=step, **build)
        if svg is not None:
            write_text(svg, ratio_bars(record), overwrite=overwrite)
    if as_json:
        print_json(record)
    else:
        render_bench(output_console(), record)
