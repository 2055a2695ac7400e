"""One model of a sweep, from its name to its record. Nothing is raised: whatever happens is a finding."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from spdify.engine import apply, exact_part, plan_model
from spdify.errors import SpdifyError
from spdify.graph import survey
from spdify.graph.census import take_census
from spdify.graph.operations import SITE, judge
from spdify.graph.sites import MODES, TRAIN_BATCH
from spdify.records import Check
from spdify.reporting import measure
from spdify.sources import BuildOptions, build
from spdify.verification import failed
from spdify.verification.site_proof import SITE_TOLERANCE
from spdify.verification.structure import eyes_agree, names_left, untouched_tensors
from spdify.zoo.names import family_of
from spdify.zoo.records import Failure, SiteGroup, ZooRecord
from spdify.zoo.reduced import prove_reduced
from spdify.zoo.site_proofs import SiteProofs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from torch import nn

    from spdify.graph.census import Census
    from spdify.graph.sites import Survey
    from spdify.records import Decision, Kind, Mode, Plan
    from spdify.rulebook import Rulebook
    from spdify.sources import LoadedModel
    from spdify.zoo.records import Outcome

#: Up to here the whole model is proved; above, every site on its own.
MAX_MODEL_PROOF_MACS = 5_000_000_000
MESSAGE_LENGTH = 400


class _Failed(Exception):  # noqa: N818 - a way out of the steps, no fault of the program
    """A check did not pass."""

    def __init__(self, checks: tuple[Check, ...]) -> None:
        super().__init__("; ".join(f"{c.name}: {c.detail or c.value}" for c in checks[:3]))


@dataclass
class _Examination:
    """What is known so far.

    Attributes:
        stage: The step at hand.
        seconds: By step.
        facts: Fields of the record.
    """

    name: str
    stage: str = "start"
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, stage: str) -> Iterator[None]:
        """Time a step; where something is raised in it, `stage` names it afterwards."""
        self.stage = stage
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.process_time() - started, 3)


def examine(
    name: str, rulebook: Rulebook, *, known: Mapping[str, float] | None = None, seed: int = 0
) -> tuple[ZooRecord, dict[str, float]]:
    """Find out all about the conversion of one model.

    Args:
        name: `timm:…` or `torchvision:…`.
        rulebook: What to convert by.
        known: Errors of proofs of sites that were made before; see `SiteProofs`.
        seed: Of all random numbers.

    Returns:
        The record, and the proofs of sites that are new.
    """
    found = _Examination(name)
    proofs = SiteProofs(known or {}, seed=seed)
    failure: Failure | None = None
    outcome: Outcome = "failed"
    try:
        outcome = _examine(found, rulebook, proofs, seed)
    except Exception as error:  # noqa: BLE001 - of a thousand models each may fail in its own way
        kind = "check" if isinstance(error, _Failed) else type(error).__name__
        text = error.message if isinstance(error, SpdifyError) else str(error)
        failure = Failure(stage=found.stage, kind=kind, message=portable(text))
    record = ZooRecord(
        name=name, family=_family(name), outcome=outcome, failure=failure, seconds=found.seconds, **found.facts
    )
    return record, proofs.new


def portable(text: str) -> str:
    """Shorten a message, and leave out what differs from machine to machine: addresses and folders."""
    text = re.sub(r"\b0x[0-9a-f]+\b", "0x…", text)
    text = re.sub(r"(?<![\w.])/(?:[^\s/'\":]+/)+", "…/", text)
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}…"


def _family(name: str) -> str:
    try:
        return family_of(name)
    except Exception:  # noqa: BLE001 - an unknown name is told by the step that builds it
        return "unknown"


def _examine(found: _Examination, rulebook: Rulebook, proofs: SiteProofs, seed: int) -> Outcome:
    """Take the steps in order."""
    loaded, before = _survey(found, seed, rulebook.kinds)
    with found.step("plan"):
        plan = plan_model(loaded.model, before, rulebook, inputs=loaded.inputs)
        cost = measure(loaded.model, before.census)
        found.facts |= {
            "inputs": loaded.inputs.args,
            "sites": site_groups(plan),
            "left_alone": dict(sorted(Counter(left.reason for left in plan.left_alone).items())),
            "before": cost,
        }
        _record(found, eyes_agree("two eyes", before))
    if not plan.applied:
        return "nothing"
    _convert(found, loaded.model, plan, before, modes=("eval",) if before.eval_only else MODES)
    _prove_sites(found, loaded.model, plan, proofs)
    _prove_whole(found, plan, before, seed, macs=cost.macs)
    return _outcome(plan)


def _outcome(plan: Plan) -> Outcome:
    if any(not _is_exact(decision) for decision in plan.applied):
        return "approximate"
    return "exact" if len(plan.applied) == len(plan.decisions) else "partial"


def _is_exact(decision: Decision) -> bool:
    return decision.claim is not None and decision.claim.value == "exact"


def _record(found: _Examination, *checks: Check) -> None:
    """Keep checks; end here where one has failed."""
    found.facts["checks"] = (*found.facts.get("checks", ()), *(portable_check(check) for check in checks))
    if bad := failed(checks):
        raise _Failed(bad)


def portable_check(check: Check) -> Check:
    """Make the words of a check portable."""
    return check.model_copy(update={"detail": portable(check.detail)})


def _survey(found: _Examination, seed: int, kinds: Collection[Kind]) -> tuple[LoadedModel, Survey]:
    """Build the model without weights, and find its sites; with weights where one of the two needs them."""
    try:
        return _survey_once(found, seed, kinds, device="meta")
    except Exception:  # noqa: BLE001 - what the fault is the attempt with weights tells
        return _survey_once(found, seed, kinds, device="cpu")


def _survey_once(found: _Examination, seed: int, kinds: Collection[Kind], *, device: str) -> tuple[LoadedModel, Survey]:
    with found.step("build"), torch.device(device):
        loaded = build(found.name, BuildOptions(seed=seed))
    with found.step("survey"):
        return loaded, survey(loaded.model, loaded.inputs, kinds)


def survey_named(name: str, *, seed: int, kinds: Collection[Kind]) -> tuple[LoadedModel, Survey]:
    """Build a model, without weights if that can be, and find its sites.

    Raises:
        Exception: Whatever the model's code raises.
    """
    return _survey(_Examination(name), seed, kinds)


def site_groups(plan: Plan) -> tuple[SiteGroup, ...]:
    """Put sites together that are alike, in the order of the first of each."""
    groups: dict[str, SiteGroup] = {}
    for decision in plan.decisions:
        site = decision.site
        group = SiteGroup(
            operator=site.operator,
            window=site.window,
            type_name=site.type_name,
            functional=site.functional,
            modes=site.modes,
            action=decision.action,
            rewrite=decision.rewrite or "",
            reason=portable(decision.reason),
            count=1,
            example=site.name,
        )
        key = group.model_copy(update={"example": ""}).model_dump_json()
        known = groups.get(key)
        groups[key] = group if known is None else known.model_copy(update={"count": known.count + 1})
    return tuple(groups.values())


def _convert(found: _Examination, model: nn.Module, plan: Plan, before: Survey, *, modes: Sequence[Mode]) -> None:
    """Convert, and look at what is left, in the modes in which the model runs."""
    with found.step("apply"):
        converted = apply(model, plan)
        untouched = untouched_tensors(model, converted, plan)
    with found.step("census"):
        censuses = {
            mode: take_census(converted, plan.inputs, mode=mode, batch=TRAIN_BATCH if mode == "train" else 1)
            for mode in modes
        }
        found.facts["after"] = measure(converted, censuses["eval"])
        _record(found, untouched, _nothing_left(plan, before, censuses))


def _nothing_left(plan: Plan, before: Survey, censuses: Mapping[Mode, Census]) -> Check:
    """Check, by the census alone, that nothing downsamples in either mode but what was kept or refused."""
    names = names_left(plan, before)
    name, words = "nothing else left", []
    for mode, census in censuses.items():
        seen = {op.name for op in census.operations if judge(op) == SITE}
        left = [site for site in before.sites if site.name in names and mode in site.modes]
        # A functional call whose expression was not found goes by its owner.
        allowed = {site.name if site.expression or not site.operation else site.path for site in left}
        words += [f"{mode}: {path} is still there" for path in sorted(seen - allowed)]
        words += [f"{mode}: {path} is gone" for path in sorted(allowed - seen)]
    if words:
        return Check(name=name, outcome="failed", detail="; ".join(words[:5]))
    return Check(name=name, outcome="passed", value=float(len(names)), detail="sites left, all kept or refused")


def _prove_sites(found: _Examination, model: nn.Module, plan: Plan, proofs: SiteProofs) -> None:
    with found.step("site proofs"):
        errors = proofs.errors(model, plan)
        exact = {d.site.name: errors[d.site.name] for d in plan.applied if _is_exact(d)}
        passed = [error for error in exact.values() if error <= SITE_TOLERANCE]
        found.facts |= {
            "proof": "site",
            "sites_proved": len(passed),
            "worst_site_error": max(exact.values(), default=None),
        }
        if len(passed) < len(exact):
            worst = max(exact, key=lambda name: exact[name])
            bad = Check(name=f"site {worst}", outcome="failed", value=exact[worst], tolerance=SITE_TOLERANCE)
            raise _Failed((bad,))


def _prove_whole(found: _Examination, plan: Plan, before: Survey, seed: int, *, macs: int) -> None:
    """Run the whole model in float64, where its size allows; a model that cannot be run so keeps the level `site`."""
    if macs >= MAX_MODEL_PROOF_MACS:
        found.facts["proof_note"] = f"{macs / 1e9:.1f} GMACs: every site is proved on its own"
        return
    with found.step("whole model"):
        try:
            exact = exact_part(plan, before)
            proof = prove_reduced(found.name, plan, seed=seed, eval_only=before.eval_only, exact=exact)
        except SpdifyError as error:
            found.facts["proof_note"] = portable(f"cannot be built for the proof: {error.message}")
            return
        found.facts["proof_inputs"] = proof.inputs.args
        _record(found, *proof.checks)
        outcomes = {check.name: check for check in proof.checks}
        unproved = [check for check in outcomes.values() if check.outcome != "passed"]
        if outcomes["whole model, eval"].outcome == "passed":
            found.facts["proof"] = "model"
        found.facts["proof_note"] = portable("; ".join(f"{c.name}: {c.detail}" for c in unproved))
