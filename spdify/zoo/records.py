"""What a sweep writes: one record per model, one per family exported to ONNX, and the settings of the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from spdify.records import Check, Count, InputSpec, Measure, Mode, Operator, Record
from spdify.rulebook import book_names

Outcome = Literal["exact", "partial", "approximate", "nothing", "failed"]
OnnxMode = Literal["family", "none", "all"]

#: Outcomes as people read them, in the order in which they are listed.
OUTCOMES: dict[Outcome, str] = {
    "exact": "exact",
    "partial": "exact, with kept or refused sites",
    "approximate": "some sites do not claim to be exact",
    "nothing": "nothing to convert",
    "failed": "failed",
}


class Failure(Record):
    """Why a model ended without a result: in which step, what kind of fault, and what it said."""

    stage: str
    kind: str
    message: str = ""


class SiteGroup(Record):
    """Sites of one model that are alike in operator, window, class and decision.

    Attributes:
        operator: What they compute.
        window: Its short form, for example `conv2d 3x3 s2 p1`.
        type_name: Class of the modules, or name of the function.
        functional: Whether they are calls of a function, not of a module.
        modes: Modes in which they run.
        action: What was decided.
        rewrite: What replaces them, or would.
        reason: Why they are kept or refused.
        count: How many.
        example: Name of the first of them.
    """

    operator: Operator
    window: str
    type_name: str
    functional: bool = False
    modes: tuple[Mode, ...] = ("eval", "train")
    action: Literal["applied", "kept", "refused"]
    rewrite: str = ""
    reason: str = ""
    count: int = Field(ge=1, le=2**63)
    example: str


class ZooRecord(Record):
    """What the sweep found out about one model.

    Attributes:
        name: The model as `spdify convert` takes it: `timm:resnet50`, `torchvision:resnet50`.
        family: The module that defines it, for example `timm.models.resnet`.
        outcome: How it ended.
        failure: Why, where it failed.
        inputs: What the model was surveyed with (its default size, batch 1).
        sites: All sites, in groups.
        left_alone: Pools and slices that are no sites, by reason.
        before: Cost of the original.
        after: Cost of the converted model.
        proof: `model` where the whole model was run in float64, `site` where every site was proved on its own only.
        proof_note: Why the level is not `model`, or what was not proved at it.
        proof_inputs: What the whole model was proved with.
        sites_proved: Applied exact sites whose own proof passed.
        worst_site_error: Largest relative error of all proofs of sites; 1e-10 is allowed.
        checks: Checks of the converted model, whole and structural.
        seconds: CPU time by step; every worker has one thread.
        wall_seconds: Time of the worker from fork to end.
        peak_memory_bytes: Largest resident memory of the worker, PyTorch and the libraries included.
    """

    schema_version: Literal[1] = 1
    name: str
    family: str
    outcome: Outcome
    failure: Failure | None = None
    inputs: tuple[InputSpec, ...] = ()
    sites: tuple[SiteGroup, ...] = ()
    left_alone: dict[str, Count] = Field(default_factory=dict)
    before: Measure | None = None
    after: Measure | None = None
    proof: Literal["model", "site", "none"] = "none"
    proof_note: str = ""
    proof_inputs: tuple[InputSpec, ...] = ()
    sites_proved: Count = 0
    worst_site_error: float | None = None
    checks: tuple[Check, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    wall_seconds: float = 0.0
    peak_memory_bytes: Count | None = None

    def count(self, action: str) -> int:
        """Give the number of sites with this decision."""
        return sum(group.count for group in self.sites if group.action == action)

    def check(self, name: str) -> Check | None:
        """Give the check of this name."""
        return next((check for check in self.checks if check.name == name), None)

    @property
    def finding(self) -> ZooRecord:
        """The record without what differs from run to run: time and memory."""
        return self.model_copy(update={"seconds": {}, "wall_seconds": 0.0, "peak_memory_bytes": None})


class OnnxAttempt(Record):
    """One model that was exported: `passed`, `failed` (the original exports), or `original fails too`."""

    name: str
    outcome: Literal["passed", "failed", "original fails too"]
    detail: str = ""
    dynamic_batch: bool | None = None
    inputs: tuple[InputSpec, ...] = ()
    checks: tuple[Check, ...] = ()


class OnnxFamilyRecord(Record):
    """Export of one family's cheapest models, until one passes or fails on its own account.

    Attributes:
        name: The family, or with `--onnx all` the model.
        outcome: That of the last attempt.
        attempts: In order of cost.
        failure: Where the worker was lost.
        seconds: Wall time of the worker.
        peak_memory_bytes: Of the worker.
    """

    schema_version: Literal[1] = 1
    name: str
    outcome: Literal["passed", "failed", "original fails too"]
    attempts: tuple[OnnxAttempt, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0
    peak_memory_bytes: Count | None = None


class SweepSettings(Record):
    """What decides the content of a run; a run is resumed with the same or not at all.

    `rules` are names or paths of rulebooks, in order; a single one may be given as it is.
    """

    filter: str = "*"
    source: Literal["timm", "torchvision"] | None = None
    rules: Annotated[tuple[str, ...], BeforeValidator(book_names)] = ("spd",)
    rulebook_sha256: str = ""
    shard: str = "1/1"
    onnx: OnnxMode = "family"
    seed: int = 0


class RunRecord(Record):
    """Content of `run.json`."""

    schema_version: Literal[1] = 1
    settings: SweepSettings
    names: Count
    names_sha256: str
    versions: dict[str, str]


class SessionRecord(Record):
    """One process that worked on a run: a line when it starts, another when it ends; a killed one has no second.

    Attributes:
        event: Which of the two.
        jobs: Workers at a time; 0 on a cluster for as many as it holds.
        cores: CPU cores that the process may use.
        memory_gb: What all workers together may hold; on a cluster one of them.
        timeout_s: What one model may take.
        done: Records in the folder at that moment.
        seconds: Wall time of the session.
        peak_memory_bytes: Largest memory of the main process and all workers together; on a cluster of one worker.
        cut_short: Whether it was interrupted.
        engine: What ran the workers: `local`, or `ray` on as many nodes as there were at that moment.
        nodes: Number of machines.
    """

    event: Literal["start", "end"]
    jobs: Count
    cores: Count
    memory_gb: float
    timeout_s: float
    done: Count
    seconds: float = 0.0
    peak_memory_bytes: Count | None = None
    cut_short: bool = False
    engine: Literal["local", "ray"] = "local"
    nodes: Count = 1
