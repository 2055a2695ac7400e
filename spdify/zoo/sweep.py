"""The sweep: every model in a worker of its own, every finding on the disk as soon as it is there."""

from __future__ import annotations

import gc
import hashlib
import json
import platform
import time
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import torch

from spdify.engine import apply, plan_model
from spdify.errors import UsageError
from spdify.graph.census import take_census
from spdify.pipeline.clusters import connected, require_reachable
from spdify.rulebook import load_rules
from spdify.zoo.examine import examine, survey_named
from spdify.zoo.exports import candidates, export_family, load_exporter
from spdify.zoo.memory import usable_cores
from spdify.zoo.names import family_of, model_names
from spdify.zoo.ray_workers import RayWorkers
from spdify.zoo.records import (
    Failure,
    OnnxFamilyRecord,
    RunRecord,
    SessionRecord,
    SweepSettings,
    ZooRecord,
)
from spdify.zoo.store import ONNX, RESULTS, SESSIONS, RunFolder
from spdify.zoo.workers import Job, Limits, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spdify.pipeline.clusters import ClusterSettings
    from spdify.rulebook import Rulebook
    from spdify.zoo.workers import Ended

PACKAGES = ("spdify", "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript")
WARM_UP = "timm:test_resnet"


class Progress(Protocol):
    """Is told how far a sweep is."""

    def say(self, text: str) -> None:
        """Tell something that may surprise."""

    def phase(self, title: str, *, done: int, total: int) -> None:
        """Begin a phase, of which `done` is there from before."""

    def ended(self, name: str, outcome: str) -> None:
        """Count one more."""


@dataclass(frozen=True)
class SweepEnd:
    """What a sweep leaves behind, and how often it failed; `claims_broken` names models that a check failed for."""

    folder: Path
    models: int
    failed: int
    exports: int
    exports_failed: int
    claims_broken: tuple[str, ...]


def sweep(  # noqa: PLR0913 - what to do, where, and how
    path: Path,
    settings: SweepSettings,
    *,
    limits: Limits,
    resume: bool,
    progress: Progress,
    cluster: ClusterSettings | None = None,
) -> SweepEnd:
    """Examine all models of the settings, then export the cheapest of each family.

    Args:
        path: Folder of the run.
        settings: What to do.
        limits: What it may take.
        resume: Go on with the run that is there; what it has is not done again.
        progress: Is told how far it is.
        cluster: Where the workers run; None for this machine.

    Raises:
        UsageError: The settings name no model, the folder holds something else or is in use, or the cluster is not
            there.
        BundleError: The folder cannot be read or written.
        RulebookError: The rulebook cannot be used.
    """
    if cluster is not None:
        require_reachable(cluster)
    rulebook = load_rules(settings.rules)
    settings = settings.model_copy(update={"rulebook_sha256": hashlib.sha256(_text(rulebook)).hexdigest()})
    names = model_names(settings)
    folder = RunFolder(path)
    with folder.locked():
        folder.begin(_run_record(settings, names), resume=resume)
        for name in (RESULTS, ONNX, SESSIONS):
            folder.mend(name)
        with connected(cluster, progress.say) if cluster else nullcontext() as ray:
            workers = RayWorkers(ray, limits) if ray else Workers(limits)
            run = _Sweep(folder, settings, rulebook, workers, progress)
            with run.session():
                run.examine_all(names)
                run.export_all(names)
        results, exports = folder.results(), folder.exports()
    return SweepEnd(
        folder=path,
        models=len(results),
        failed=sum(r.outcome == "failed" for r in results),
        exports=len(exports),
        exports_failed=sum(r.outcome == "failed" for r in exports),
        claims_broken=tuple(r.name for r in results if r.failure is not None and r.failure.kind == "check"),
    )


def _text(rulebook: Rulebook) -> bytes:
    return rulebook.model_dump_json(exclude={"source"}).encode()


def _run_record(settings: SweepSettings, names: tuple[str, ...]) -> RunRecord:
    return RunRecord(
        settings=settings,
        names=len(names),
        names_sha256=hashlib.sha256("\n".join(names).encode()).hexdigest(),
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
    )


@dataclass
class _Sweep:
    """One session of a run."""

    folder: RunFolder
    settings: SweepSettings
    rulebook: Rulebook
    workers: Workers | RayWorkers
    progress: Progress

    @contextmanager
    def session(self) -> Iterator[None]:
        """Write a line when the session starts and another when it ends, whichever way."""
        started = time.monotonic()
        limits = self.workers.limits
        line = SessionRecord(
            event="start", jobs=limits.jobs, cores=usable_cores(), memory_gb=limits.memory_gb,
            timeout_s=limits.timeout_s, done=len(self.folder.results()), **self._engine(),
        )  # fmt: skip
        self.folder.append(SESSIONS, line)
        cut_short = True
        try:
            yield
            cut_short = False
        finally:
            end = {
                "event": "end",
                "done": len(self.folder.results()),
                "seconds": round(time.monotonic() - started, 1),
                "peak_memory_bytes": self.workers.peak_memory_bytes,
                "cut_short": cut_short,
                **self._engine(),
            }
            self.folder.append(SESSIONS, line.model_copy(update=end))

    def _engine(self) -> dict[str, Any]:
        if isinstance(self.workers, RayWorkers):
            return {"engine": "ray", "nodes": self.workers.cluster.nodes}
        return {"engine": "local", "nodes": 1}

    def examine_all(self, names: tuple[str, ...]) -> None:
        """Examine every model that has no line yet."""
        done = {record.name for record in self.folder.results()}
        left = [name for name in names if name not in done]
        self.progress.phase("models", done=len(names) - len(left), total=len(names))
        if not left:
            return
        known: dict[str, float] = {}
        jobs = [Job(name, partial(_examine_job, name, self.rulebook, known, self.settings.seed)) for name in left]
        option = "--task-memory" if isinstance(self.workers, RayWorkers) else "--memory"
        warm_up = partial(_warm_up, self.rulebook, self.workers.limits.memory_gb, option)
        with closing(self.workers.run(jobs, warm_up)) as ended:
            for end in ended:
                record, proofs = _record_of(end)
                known.update(proofs)  # workers that are forked from now on have them
                self.folder.append(RESULTS, record)
                self.progress.ended(end.name, record.outcome)

    def export_all(self, names: tuple[str, ...]) -> None:
        """Export the cheapest models of every family that has no line yet."""
        groups = candidates((r for r in self.folder.results() if r.name in set(names)), self.settings.onnx)
        done = {record.name for record in self.folder.exports()}
        left = {family: models for family, models in groups.items() if family not in done}
        self.progress.phase("exports to ONNX", done=len(groups) - len(left), total=len(groups))
        if not left:
            return
        jobs = [
            Job(family, partial(_export_job, family, models, self.rulebook, self.settings.seed))
            for family, models in left.items()
        ]
        with closing(self.workers.run(jobs, _warm_up_exporter)) as ended:
            for end in ended:
                record = _onnx_record_of(end)
                self.folder.append(ONNX, record)
                self.progress.ended(end.name, record.outcome)


def _warm_up(rulebook: Rulebook, memory_gb: float, option: str) -> None:
    """Load all that is loaded at first use, on one thread: a fork does not take a pool of threads along.

    `option` is what gives workers their memory.

    No gradients here: PyTorch refuses them in workers forked from a process that has computed some.

    Raises:
        UsageError: This process has computed gradients, or a worker cannot even start within its memory.
    """
    torch.set_num_threads(1)
    loaded, before = survey_named(WARM_UP, seed=0, kinds=rulebook.kinds)
    plan = plan_model(loaded.model, before, rulebook, inputs=loaded.inputs)
    take_census(apply(loaded.model, plan), loaded.inputs, mode="eval")
    gc.collect()
    gc.freeze()  # what is there is looked at no more, so that its pages stay shared
    (probe,) = Workers(Limits(memory_gb=memory_gb)).run([Job("probe", _probe)])
    if probe.failure == "memory":
        raise UsageError(f"cannot sweep: a worker that does nothing {probe.detail}", hint=f"Give more by {option}.")
    if probe.payload is None:
        raise UsageError(
            "cannot sweep from this process: it has computed gradients, after which its workers cannot",
            hint="Run `spdify zoo run`, or call sweep() before anything else.",
        )


def _warm_up_exporter() -> None:
    torch.set_num_threads(1)
    load_exporter()
    gc.freeze()


def _begin_job() -> None:
    """Make the thread pool of a forked worker anew before any gradient is computed.

    A fork leaves PyTorch's pool broken and the next call of set_num_threads replaces it. The autograd engine makes that
    call from each of its threads as they start: two at once, and the process aborts ("Invalid thread pool!").
    """
    torch.set_num_threads(1)


def _probe() -> bytes:
    _begin_job()
    torch.ones(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    return b"fine"


def _examine_job(name: str, rulebook: Rulebook, known: dict[str, float], seed: int) -> bytes:
    _begin_job()
    record, proofs = examine(name, rulebook, known=known, seed=seed)
    return json.dumps({"record": record.model_dump_json(), "proofs": proofs}).encode()


def _export_job(family: str, names: tuple[str, ...], rulebook: Rulebook, seed: int) -> bytes:
    _begin_job()
    return export_family(family, names, rulebook, seed=seed).model_dump_json().encode()


def _record_of(end: Ended) -> tuple[ZooRecord, dict[str, float]]:
    """Give the record of a job, or that of its loss."""
    if end.payload is None:
        lost = ZooRecord(
            name=end.name, family=family_of(end.name), outcome="failed", failure=_loss(end),
            wall_seconds=round(end.seconds, 3), peak_memory_bytes=end.peak_memory_bytes,
        )  # fmt: skip
        return lost, {}
    content = json.loads(end.payload)
    record = ZooRecord.model_validate_json(content["record"])
    measured = {"wall_seconds": round(end.seconds, 3), "peak_memory_bytes": end.peak_memory_bytes}
    return record.model_copy(update=measured), content["proofs"]


def _onnx_record_of(end: Ended) -> OnnxFamilyRecord:
    measured = {"seconds": round(end.seconds, 1), "peak_memory_bytes": end.peak_memory_bytes}
    if end.payload is None:
        lost = OnnxFamilyRecord(name=end.name, outcome="failed", failure=_loss(end))
        return lost.model_copy(update=measured)
    return OnnxFamilyRecord.model_validate_json(end.payload).model_copy(update=measured)


def _loss(end: Ended) -> Failure:
    return Failure(stage="worker", kind=end.failure or "crash", message=end.detail)
