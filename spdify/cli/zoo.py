"""`spdify zoo`: conversions of all models of timm and torchvision, and what came of them."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from spdify.cli import options as o
from spdify.cli.terminal import SETTINGS, error_console, output_console, print_json

if TYPE_CHECKING:
    from rich.progress import TaskID

zoo_app = typer.Typer(no_args_is_help=True, help="Convert every model of timm and torchvision, and sum up.")

SECONDS_BETWEEN_LINES = 30.0


@zoo_app.command("run")
def run(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.")],
    filter_: Annotated[
        str, typer.Option("--filter", metavar="GLOB", help="Only models of such names: 'resnet*', 'torchvision:*'.")
    ] = "*",
    source: Annotated[
        Literal["timm", "torchvision"] | None, typer.Option(help="Only models of this library (default: both).")
    ] = None,
    rules: o.Rules = o.DEFAULT_RULES,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Models at a time (default: one per core; on a cluster, what it holds).",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, metavar="S", help="Seconds that one model may take.")] = 600,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="GB", help="Memory for all workers together (default: 80 % of what is free, 14 at most)."
        ),
    ] = None,
    shard: Annotated[str, typer.Option(metavar="i/n", help="The i-th of n equal parts of the models.")] = "1/1",
    onnx: Annotated[
        Literal["family", "none", "all"],
        typer.Option(help="Export and compare the cheapest model of each family, none, or every model."),
    ] = "family",
    seed: o.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in DIR.")] = False,
    engine: o.Engine = "local",
    address: o.Address = None,
    task_cpus: o.TaskCpus = None,
    task_memory: o.TaskMemory = None,
    retries: o.Retries = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Convert and prove model after model, with random weights, each in a process of its own.

    DIR gets one line per model as it ends; a run that was cut off, however it was, goes on with --resume, with the same
    engine or the other: a Ray cluster (--engine ray) gives the same lines as one machine. A model that
    fails is a finding, not an error. Exit codes: 0 done, 2 usage, 3 a claim did not hold for some model.
    """
    progress = _Progress()
    progress.say("loading PyTorch, timm and torchvision")
    from spdify.errors import CheckFailedError, UsageError
    from spdify.zoo.memory import default_budget_gb, usable_cores
    from spdify.zoo.records import SweepSettings
    from spdify.zoo.sweep import sweep
    from spdify.zoo.workers import Limits

    cluster = o.cluster_settings(engine, address, task_cpus, None, task_memory, retries, jobs)
    if cluster is None:
        limits = Limits(jobs=jobs or usable_cores(), timeout_s=timeout, memory_gb=memory or default_budget_gb())
    elif memory is not None:
        raise UsageError(
            "cannot give all workers of a cluster a common memory", hint="--task-memory is for each of them."
        )
    else:
        limits = Limits(jobs=jobs or 0, timeout_s=timeout, memory_gb=task_memory or 0.0)
    settings = SweepSettings(filter=filter_, source=source, rules=tuple(rules), shard=shard, onnx=onnx, seed=seed)
    with redirect_stdout(sys.stderr), progress:
        end = sweep(output, settings, limits=limits, resume=resume, progress=progress, cluster=cluster)
    if as_json:
        print_json(vars(end) | {"folder": str(end.folder)})
    else:
        output_console().print(
            f"{end.models} models, {end.failed} failed; {end.exports} exports to ONNX, {end.exports_failed} failed. "
            f"`spdify zoo summarize {end.folder}` sums up.",
            markup=False,
        )
    if end.claims_broken:
        raise CheckFailedError(
            f"a claim does not hold for {len(end.claims_broken)} models: {', '.join(end.claims_broken[:5])}",
            hint=f"Their lines in {end.folder} say which. Please report it.",
        )


@zoo_app.command("summarize")
def summarize(
    folder: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folder of a run; several for its shards.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to write (default: the first DIR).")
    ] = None,
    debug: o.Debug = False,
) -> None:
    """Write summary.html, and summary.md with its pictures, from the lines of a run; what is there is replaced."""
    from spdify.zoo.summarizing import summarize as write_summary

    for file in write_summary(folder, output or folder[0]):
        output_console().print(str(file), markup=False, soft_wrap=True)


class _Progress:
    """Shows how far a sweep is: a bar on a terminal, else a line every half a minute."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = error_console()
        self._live = console.is_terminal and not SETTINGS.quiet
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"), console=console, disable=not self._live, speed_estimate_period=300,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._title, self._total, self._done, self._before = "", 0, 0, 0
        self._failed = 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        if not SETTINGS.quiet:
            self._console.print(text, markup=False, highlight=False)

    def phase(self, title: str, *, done: int, total: int) -> None:
        """Begin a phase, of which `done` is there from before."""
        self._title, self._total, self._done, self._before, self._failed = title, total, done, done, 0
        self._began = self._told = time.monotonic()
        if self._task is not None:
            self._bar.update(self._task, visible=False)
        self._task = self._bar.add_task(title, total=total, completed=done, last="")
        if not self._live:
            self.say(f"{title}: {total - done} of {total} to do")

    def ended(self, name: str, outcome: str) -> None:
        """Count one more."""
        self._done += 1
        self._failed += outcome == "failed"
        if self._task is not None:
            self._bar.update(self._task, advance=1, last=f"{name}: {outcome}")
        now = time.monotonic()
        if not self._live and (now - self._told >= SECONDS_BETWEEN_LINES or self._done == self._total):
            self._told = now
            self.say(self._line(now - self._began))

    def _line(self, seconds: float) -> str:
        left = seconds / (self._done - self._before) * (self._total - self._done)
        return (
            f"{self._title}: {self._done} of {self._total} after {seconds / 60:.1f} min, {self._failed} failed, "
            f"some {left / 60:.0f} min left"
        )
