"""`spdify evaluate` and `spdify calibrate`: what a model does with images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from spdify.cli import options as o
from spdify.cli.terminal import output_console, print_json, steps


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{o.MODEL_HELP} Or an ONNX file.", show_default=False)],
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|imagefolder:PATH|PATH",
            help="For classifiers cifar10, cifar100, tiny-imagenet, digits or imagefolder:PATH. For detectors a data "
            "yaml or the folder that holds one (YOLO), or a folder with annotations/instances_*.json (COCO) or such a "
            "file.",
            rich_help_panel=o.IMAGES,
        ),
    ] = "cifar10",
    split: Annotated[
        Literal["test", "validation", "train"] | None,
        typer.Option(
            help="Images to measure on (default: the first of these that there is; for detectors validation comes "
            "first).",
            rich_help_panel=o.IMAGES,
        ),
    ] = None,
    data_dir: o.DataDir = Path("data"),
    download: o.Download = False,
    validation_share: o.ValidationShare = 0.1,
    skip_corrupt: o.SkipCorrupt = False,
    mean: o.Mean = None,
    std: o.Std = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            min=1,
            metavar="N",
            help="Images at a time (default: 256, for detectors 16).",
            rich_help_panel=o.MACHINE,
        ),
    ] = None,
    device: o.Device = "auto",
    workers: o.Workers = 0,
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
    """Measure a classifier on labelled images (accuracy, loss, calibration, confusion, speed), or a detector (COCO AP).

    A classifier's images become inputs as the model was trained (its folder, ONNX file or registry says how); otherwise
    they are normalised by the data's own mean and deviation. The output says which. Detectors (torchvision's, and
    YOLO networks of Ultralytics) prepare images as their library does.
    """
    with steps() as step:
        step("loading PyTorch")
        from spdify.cli.render import render_detector, render_measured
        from spdify.datasets import DataOptions
        from spdify.pipeline.evaluating import Normalisation
        from spdify.pipeline.evaluating import evaluate as measure
        from spdify.records import Machine, MeasuredDetector

        build = o.build_arguments(
            pretrained=pretrained, checkpoint=checkpoint, num_classes=num_classes, in_chans=in_chans,
            model_kwargs=model_kwargs, input_size=input_size, seed=seed, reparameterize=reparameterize,
            trust_checkpoint=trust_checkpoint,
        )  # fmt: skip
        found = measure(
            model, data=data, split=split,
            data_options=DataOptions(
                folder=data_dir, download=download, validation_share=validation_share, skip_corrupt=skip_corrupt
            ),
            normalisation=Normalisation(o.numbers("--mean", mean), o.numbers("--std", std), build["input_size"]),
            batch_size=batch_size, machine=Machine(device=device, workers=workers), build=build, code=code,
            progress=step,
        )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print_json(found)
    elif isinstance(found, MeasuredDetector):
        render_detector(output_console(), found)
    else:
        render_measured(output_console(), found)


def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that spdify wrote.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write (default: DIR-calibrated).")
    ] = None,
    data: o.Data = "cifar10",
    images: Annotated[
        int, typer.Option(metavar="N", min=2, help="Images; a fifth is held out.", rich_help_panel=o.IMAGES)
    ] = 1024,
    data_dir: o.DataDir = Path("data"),
    download: o.Download = False,
    skip_corrupt: o.SkipCorrupt = False,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    pools: Annotated[bool, typer.Option("--pools/--no-pools", help="Whether to fit approximate pools.")] = True,
    norms: Annotated[
        bool | None,
        typer.Option(
            "--norms/--no-norms", help="Renew batch-norm statistics (default: where something is approximate)."
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Whether to write and compare model.onnx.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle in the output folder.")] = False,
    code: o.Code = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """Bring an approximate conversion nearer to its original, on images without labels.

    Pools that became one convolution are fitted to what the pools gave, by least squares, and the statistics of batch
    norms are taken anew. The training images of the data set are used, their labels are not.
    """
    with steps() as step:
        step("loading PyTorch")
        from spdify.cli.render import render_calibration
        from spdify.datasets import DataOptions
        from spdify.pipeline.calibrating import calibrate as fit
        from spdify.pipeline.evaluating import Normalisation
        from spdify.sources import parse_input_size

        target = output or Path(f"{folder.resolve().name}-calibrated")
        size = None if input_size is None else parse_input_size(input_size)
        found = fit(
            folder, target, data=data,
            data_options=DataOptions(folder=data_dir, download=download, skip_corrupt=skip_corrupt),
            normalisation=Normalisation(o.numbers("--mean", mean), o.numbers("--std", std), size),
            images=images, pools=pools, norms=norms, onnx=onnx, overwrite=overwrite, code=code, progress=step,
        )  # fmt: skip
    if as_json:
        print_json({"folder": str(target), "calibration": found})
    else:
        render_calibration(output_console(), found, target)
