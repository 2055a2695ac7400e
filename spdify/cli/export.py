"""`spdify export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spdify.cli import options as o
from spdify.cli.terminal import output_console, print_json, steps

FORM_HELP = (
    "spd: as it is; fused: strided convolutions, what nobody trained as it was; space-to-depth: ONNX's own operator; "
    "auto: the fastest here (default: fused; spd for ultralytics)."
)


def export(
    model: o.Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder to write (default: ./MODEL-FORM-FORMAT)."),
    ] = None,
    form: Annotated[str, typer.Option(metavar="spd|fused|space-to-depth|auto", help=FORM_HELP)] = "",
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="onnx|pt2|python|ultralytics",
            help="ONNX; an archive for torch.export.load; one Python file and its weights, without spdify; or a .pt "
            "that Ultralytics' package (extra, AGPL-3.0) validates, trains and exports.",
        ),
    ] = "onnx",
    dtype: Annotated[
        str, typer.Option(metavar="float32|float16", help="Of weights, inputs and outputs; float16 for ONNX only.")
    ] = "float32",
    opset: Annotated[int | None, typer.Option(metavar="N", help="ONNX opset (default: 20).")] = None,
    dynamic_size: Annotated[
        bool | None,
        typer.Option(
            "--dynamic-size/--fixed-size",
            help="Whether height and width stay open: insisted on (default: in the fused form, where the network can).",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With how many threads auto measures (default: all).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export there.")] = False,
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
    """Write a converted network in the form that is deployed, and compare what was written with it.

    An SPD-Conv is exactly a larger strided convolution: train the one, ship the other. Exit codes as for convert.
    """
    with steps() as step:
        step("loading PyTorch")
        from spdify.cli.render import render_export
        from spdify.exporting import OnnxOptions
        from spdify.pipeline.exporting import ExportSettings
        from spdify.pipeline.exporting import export as write

        build = o.build_arguments(
            pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
            model_kwargs=model_kwargs, input_size=input_size, seed=seed, reparameterize=reparameterize,
            trust_checkpoint=trust_checkpoint,
        )  # fmt: skip
        settings = ExportSettings(
            form=form, format=file_format, dtype=dtype, opset=OnnxOptions.opset if opset is None else opset,
            dynamic_size=dynamic_size, threads=threads,
        )  # fmt: skip
        folder = output or default_output(model, settings.form, file_format)
        record = write(model, folder, settings=settings, code=code, overwrite=overwrite, progress=step, **build)
    if as_json:
        print_json({"folder": str(folder), "export": record})
    else:
        render_export(output_console(), record, folder)


def default_output(model: str, form: str, file_format: str) -> Path:
    """Give `./<folder or model>-<form>-<format>`."""
    from spdify.bundle import is_bundle
    from spdify.sources import parse_spec

    name = Path(model).resolve().name if is_bundle(model) else parse_spec(model).name
    return Path(f"{name}-{form}-{file_format}")
