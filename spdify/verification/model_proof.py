"""Proof of the whole model, in float64, with random norms, in train and in eval mode.

What is proved is the plan and the weight map: a copy of the original gets random norms, gains and constants, is
converted by `spdify.engine.apply`, and both run on the same inputs with the same random seed. 1e-9 relative is allowed:
float64 rounding of different summation orders stays near 1e-13 through a hundred layers, a wrong weight in a live site
does not.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from spdify.engine import apply_lazily
from spdify.engine.carrying import after_changes, before_changes
from spdify.graph.detectors import detector_of
from spdify.graph.structure import lazy_copy
from spdify.records import Check, Plan
from spdify.verification.carried_proof import without_dropout
from spdify.verification.compare import carries_signal, relative_error, tensors_of
from spdify.verification.inside import compare_inside, find_watched
from spdify.verification.islands import find_islands
from spdify.verification.liveness import Trial, judge_sites, restore_buffers
from spdify.verification.losses import gradient_error, gradients_of, loss_error, losses_of, training_inputs
from spdify.verification.randomised import randomise, settle_statistics, whole_batch_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spdify.graph.detectors import Detector
    from spdify.verification.inside import Agreement

    MakeInputs = Callable[[torch.dtype], tuple[tuple[Tensor, ...], dict[str, Tensor]]]

MODEL_TOLERANCE = 1e-9
#: A steep network (norms over two positions, say) may turn one rounding into more than that. Where the original itself,
#: with inputs and weights off in the last digit, moves nearly as far, it is rounding; above 1e-5 nothing excuses it.
NUDGE, ROUNDING_SHARE, STEEP_TOLERANCE = 1e-15, 10.0, 1e-5
ISLAND_TOLERANCE = 1e-5  # float32 rounding through a network, where the model itself computes in float32
LOSSES, GRADIENTS = "losses, train", "gradients of losses, train"
#: Sums over all places of all layers above, of both signs.
GRADIENT_TOLERANCE = 1e-7
MODEL_CHECKS = ("whole model, train", "statistics, train", "whole model, eval", "live sites", "gradients")


@dataclass
class ModelProof:
    """Checks of the whole model, and the random weights that they were made with.

    Attributes:
        checks: In the order in which they were made.
        state: The converted model's state dict with random norms, float64.
        original: The same of the original (with its approximate sites put in).
    """

    checks: tuple[Check, ...]
    state: dict[str, Tensor]
    original: dict[str, Tensor]


def prove_model(  # noqa: PLR0913 - the model, its plan, how to run it
    model: nn.Module, plan: Plan, make_inputs: MakeInputs, *, seed: int, eval_only: str = "", exact: Plan | None = None
) -> ModelProof:
    """Compare a model with its conversion.

    Args:
        model: The original; not changed.
        plan: Its plan.
        make_inputs: Gives positional and named inputs of a batch of at least 2, floating ones in the dtype asked for.
        seed: Of weights, inputs and dropout.
        eval_only: Why the original does not run in train mode; empty where it does.
        exact: The plan without its approximate sites, where there are some and channels change.
    """
    source = lazy_copy(model).cpu().double()
    switched_off = without_dropout(source, plan)
    randomise(source, seed=seed)
    # What the caller has frozen is proved like the rest, and the loss below needs something to differentiate.
    for parameter in source.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    approximate = _approximate(plan)
    proved, remark = plan, ""
    # Sites that do not claim to be exact are put into the reference too: the rest must then agree.
    # double(): where a model has no tensor of its own, the new ones are in PyTorch's default precision.
    reference = source
    if approximate.applied and exact is not None and _is_tangled(plan):
        # Their channels run into those of exact ones, or into modules that only one of both models would have.
        proved, remark = exact, "approximate sites are left out"
    elif approximate.applied:
        reference, remark = (
            apply_lazily(source, approximate).double(),
            "approximate sites are put into the original as well",
        )
    if switched_off:
        remark = "; ".join(filter(None, (remark, f"without dropout at {', '.join(switched_off)}")))
    trial = Trial(reference, apply_lazily(source, proved).double(), make_inputs(torch.float64), seed)
    compare = _Comparison(trial, proved, remark)
    checks = _train(compare, source, eval_only)
    if compare.trained or eval_only:
        settle_statistics(reference, lambda: trial.run(reference), seed=seed + 1)
    _copy_buffers(reference, trial.converted, proved)
    checks.append(compare.outputs("eval"))
    judged = judge_sites(trial, proved, tolerance=compare.tolerance)
    if judged[0].outcome != "passed" and compare.ran and compare.look_inside():
        # Nothing was found by what these sites feed, say: inside, they can be seen.
        checks[-1] = compare.outputs("eval")
        judged = judge_sites(trial, proved, tolerance=compare.tolerance)
    checks += judged
    if plan.applied and len(approximate.applied) == len(plan.applied):
        checks = [_nothing_exact(check) for check in checks]
    if proved is not plan:
        trial = replace(trial, converted=apply_lazily(reference, plan).double())
    if approximate.applied:
        checks.append(_distance(source, trial))
    return ModelProof(tuple(checks), dict(trial.converted.state_dict()), dict(reference.state_dict()))


def _nothing_exact(check: Check) -> Check:
    """Say that a comparison of what is the same on both sides proves nothing."""
    if not check.name.startswith(("whole model", "statistics")) or check.outcome != "passed":
        return check
    return Check(name=check.name, outcome="not run", detail="no site claims to be exact")


def replaced_modules(plan: Plan) -> frozenset[str]:
    """Give the paths of the called modules that a plan replaces, or has put out more channels."""
    sites = {d.site.path for d in plan.applied if not d.site.operation}
    # Those that give more channels than before are no more to be compared than a block is inside.
    return frozenset(sites | {a.path for a in plan.adjustments if a.gives is not None})


def _train(compare: _Comparison, source: nn.Module, eval_only: str) -> list[Check]:
    """Compare both models in train mode: what they give for images alone, or a detector's losses."""
    if not eval_only:
        return [compare.outputs("train"), compare.statistics()]
    detector = detector_of(source)
    if detector is None:
        untrained = Check(name="whole model, train", outcome="not run", detail=f"eval only: {eval_only}")
        return [untrained, compare.statistics()]
    return [*compare.losses(detector), compare.statistics()]


def _approximate(plan: Plan) -> Plan:
    """Give the plan with only the applied decisions that do not claim to be exact, and what follows them alone."""
    chosen = tuple(d for d in plan.applied if d.claim is None or d.claim.value != "exact")
    names = {d.site.name for d in chosen}
    following = tuple(a for a in plan.adjustments if names.issuperset(a.sites))
    return plan.model_copy(update={"decisions": chosen, "adjustments": following})


def _is_tangled(plan: Plan) -> bool:
    """Whether channels from sites that do not claim to be exact reach anything."""
    names = {d.site.name for d in _approximate(plan).applied}
    return any(names.intersection(a.sites) and (a.tensors or a.numbers) for a in plan.adjustments)


class _Comparison:
    """The comparisons of both models; it remembers what float32 islands cost.

    Attributes:
        tolerance: Largest error allowed so far.
        trained: Whether both models ran in train mode.
        ran: Whether both ran the last time.
    """

    def __init__(self, trial: Trial, plan: Plan, remark: str) -> None:
        self.tolerance = MODEL_TOLERANCE
        self._trial, self._plan, self._remark = trial, plan, remark
        self._before: dict[str, Tensor] = {}
        self.trained = self.ran = False

    def outputs(self, mode: str) -> Check:
        """Compare the outputs in one mode."""
        name = f"whole model, {mode}"
        ran = self._run_both(name, mode)
        return ran if isinstance(ran, Check) else self._judge(name, *ran)

    def _run_both(self, name: str, mode: str, *, gradients: bool = False) -> Check | tuple[object, object]:
        """Run both models in one mode; give their outputs, or a check that says why there are none."""
        trial = self._trial
        self.ran = False
        trial.reference.train(mode == "train")
        trial.converted.train(mode == "train")
        self._before = {key: b.clone() for key, b in trial.reference.named_buffers()}
        with torch.set_grad_enabled(gradients), whole_batch_statistics(trial.reference, trial.converted):
            try:
                expected = self._run_original()
            except Exception as error:  # noqa: BLE001 - any fault of the user's model, which is reported
                return Check(name=name, outcome="not run", detail=f"the original does not run in float64: {error}")
            try:
                actual = trial.run(trial.converted)
            except Exception as error:  # noqa: BLE001 - the original runs, so this is a fault of the conversion
                return Check(name=name, outcome="failed", detail=f"the converted model does not run: {error}")
        self.ran = True
        self.trained = mode == "train"
        return expected, actual

    def losses(self, detector: Detector) -> list[Check]:
        """Compare a detector's losses for made-up targets, and their gradients; its statistics are then trained."""
        with self._on(training_inputs(detector, self._trial.inputs, seed=self._trial.seed)):
            return self._losses()

    @contextmanager
    def _on(self, inputs: Any) -> Iterator[None]:  # noqa: ANN401 - whatever the models take in train mode
        kept, self._trial.inputs = self._trial.inputs, inputs
        try:
            yield
        finally:
            self._trial.inputs = kept

    def _losses(self) -> list[Check]:
        ran = self._run_both(LOSSES, "train", gradients=True)
        if isinstance(ran, Check):
            return [ran]
        expected, actual = map(losses_of, ran)
        said = {name: loss for name, loss in expected.items() if loss.isfinite() and loss != 0}
        if not said:
            return [
                Check(name=LOSSES, outcome="not run", detail="every loss is zero or not finite, in the original too")
            ]
        check = self._judge_error(
            LOSSES, loss_error(expected, actual), f"{', '.join(said)} for made-up targets", expected
        )
        if check.outcome != "passed":
            return [self._tipped() or check]
        trial = self._trial
        error = gradient_error(gradients_of(expected, trial.reference), gradients_of(actual, trial.converted))
        tolerance = max(GRADIENT_TOLERANCE, check.tolerance or 0.0)
        detail = "of all losses together, with respect to what conversion left alone"
        outcome: Literal["passed", "failed"] = "passed" if error <= tolerance else "failed"
        return [check, Check(name=GRADIENTS, outcome=outcome, value=error, tolerance=tolerance, detail=detail)]

    def _tipped(self) -> Check | None:
        """Say that rounding tips what a detector draws or chooses, where all is equal until then."""
        with self._states():
            watched, _ = find_watched(self._trial.reference, self._trial.run, replaced_modules(self._plan))
        found = self._inside(watched)
        if not found.parted or found.error > MODEL_TOLERANCE:
            return None
        detail = f"rounding tips {found.parted}, what follows is not compared"
        return Check(name=LOSSES, outcome="not run", value=found.error, detail=detail)

    def _run_original(self) -> object:
        """Run the original; where it mixes float32 tensors of its own with float64 weights, with its casts promoted."""
        trial = self._trial
        try:
            return trial.run(trial.reference)
        except RuntimeError:
            if trial.promoted:
                raise
            trial.promoted = True
            try:
                expected = trial.run(trial.reference)
            except Exception:
                trial.promoted = False
                raise
        self._remark = "; ".join(filter(None, (self._remark, "the model's casts to float32 are made casts to float64")))
        return expected

    def _judge(self, name: str, expected: object, actual: object) -> Check:
        error = relative_error(expected, actual)
        if error <= MODEL_TOLERANCE and carries_signal(expected) and not self._trial.watched:
            return Check(name=name, outcome="passed", value=error, tolerance=MODEL_TOLERANCE, detail=self._remark)
        remark = self._remark
        if self._trial.watched or self.look_inside(always=not carries_signal(expected)):
            inside = self._inside(self._trial.watched)
            error, remark = inside.error, "; ".join(filter(None, (inside.detail, remark)))
            if not inside.complete and error <= MODEL_TOLERANCE:
                return Check(name=name, outcome="not run", value=error, detail=inside.detail)
        elif not tensors_of(expected):
            return Check(name=name, outcome="not run", detail="the output holds no floating-point tensor")
        elif error <= MODEL_TOLERANCE:
            detail = "the output is constant: comparing it proves nothing"
            return Check(name=name, outcome="not run", value=error, detail=detail)
        return self._judge_error(name, error, remark, expected)

    def look_inside(self, *, always: bool = False) -> bool:
        """Have what is inside the models compared from now on, where the original chooses (or `always`) and it can be.

        Returns:
            Whether that changes anything.
        """
        if self._trial.watched:
            return False
        with self._states():
            watched, chooses = find_watched(self._trial.reference, self._trial.run, replaced_modules(self._plan))
        if watched and (chooses or always):
            self._trial.watched = watched
        return bool(self._trial.watched)

    def _inside(self, watched: tuple[str, ...]) -> Agreement:
        trial = self._trial
        with self._states():
            return compare_inside(
                (trial.reference, trial.converted), trial.run, watched, replaced_modules(self._plan),
                covering=[d.site.path for d in self._plan.applied],
            )  # fmt: skip

    def _judge_error(self, name: str, error: float, remark: str, expected: object) -> Check:
        """Judge the error of something that can be compared."""
        if error <= MODEL_TOLERANCE:
            return Check(name=name, outcome="passed", value=error, tolerance=MODEL_TOLERANCE, detail=remark)
        # With the casts promoted there are none.
        found = () if self._trial.promoted else find_islands(self._trial.reference, self._trial.inputs)
        if found and error <= ISLAND_TOLERANCE:
            self.tolerance = ISLAND_TOLERANCE
            detail = f"the model computes in float32 at {', '.join(found[:5])}, so float64 shows no more"
            return Check(name=name, outcome="passed", value=error, tolerance=ISLAND_TOLERANCE, detail=detail)
        if not self._trial.watched and error <= STEEP_TOLERANCE:
            share = ROUNDING_SHARE * self._rounding(expected=expected)
            if error <= share:
                self.tolerance = share
                return Check(name=name, outcome="passed", value=error, tolerance=share, detail=_steep(share))
        return Check(name=name, outcome="failed", value=error, tolerance=MODEL_TOLERANCE, detail="outputs differ")

    @contextmanager
    def _states(self) -> Iterator[None]:
        """Run the models once more as they were run before, and leave behind what that run has left."""
        models = (self._trial.reference, self._trial.converted)
        after = [{key: b.clone() for key, b in model.named_buffers()} for model in models]
        with whole_batch_statistics(*models):
            try:
                yield
            finally:
                for model, buffers in zip(models, after, strict=True):
                    restore_buffers(model, buffers)

    def statistics(self) -> Check:
        """Compare every buffer after the training step: running statistics most of all."""
        name = "statistics, train"
        if not self.trained:
            return Check(name=name, outcome="not run", detail="no training step was made")
        theirs = dict(self._trial.converted.named_buffers())
        kept = {key: b for key, b in self._trial.reference.named_buffers() if key in theirs}
        if all(torch.equal(b, self._before[key]) for key, b in kept.items()):
            return Check(name=name, outcome="not run", detail="the model keeps no statistics")
        error = _buffer_error(kept, before_changes(theirs, self._plan))
        tolerance, detail = self.tolerance, ""
        if tolerance < error <= STEEP_TOLERANCE and error <= (share := ROUNDING_SHARE * self._rounding(kept)):
            tolerance, detail = share, _steep(share)
        passed = error <= tolerance
        outcome = "passed" if passed else "failed"
        return Check(name=name, outcome=outcome, value=error, tolerance=tolerance, detail=detail)  # type: ignore[arg-type]

    def _rounding(self, statistics: dict[str, Tensor] | None = None, expected: object = None) -> float:
        """Give how far rounding alone moves the original: with inputs and weights off by one rounding.

        Args:
            statistics: Its buffers after the run; these are then compared.
            expected: Else, its output.
        """
        trial = self._trial
        # Whole numbers count the runs, of which this is one more.
        kept = {key: b.clone() for key, b in (statistics or {}).items() if b.is_floating_point()}
        with torch.no_grad(), self._states(), _nudged_weights(trial.reference, seed=trial.seed):
            output = trial.run(trial.reference, inputs=_nudged(trial.inputs, seed=trial.seed))
            moved = dict(trial.reference.named_buffers())
            found = _buffer_error(kept, moved) if kept else relative_error(expected, output)
        return found if math.isfinite(found) else 0.0  # what cannot be compared excuses nothing


def _steep(share: float) -> str:
    return f"rounding alone moves the original by {share / ROUNDING_SHARE:.0e}: inputs and weights off by 1e-15 show it"


def _nudged(values: Any, *, seed: int) -> Any:  # noqa: ANN401 - tensors, however nested
    """Change every floating-point tensor by about `NUDGE` of itself."""
    generator = torch.Generator().manual_seed(seed)

    def nudge(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        return x * (1 + NUDGE * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x))

    return tree_map_only(Tensor, nudge, values)


@contextmanager
def _nudged_weights(model: nn.Module, *, seed: int) -> Iterator[None]:
    """Change all parameters for a while."""
    kept = {name: p.clone() for name, p in model.named_parameters()}
    for name, value in _nudged(kept, seed=seed).items():
        model.get_parameter(name).copy_(value)
    try:
        yield
    finally:
        for name, value in kept.items():
            model.get_parameter(name).copy_(value)


def _buffer_error(kept: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Give the largest relative error of any buffer."""
    one = torch.ones(1)  # goes with each buffer: integer ones alone have no figure, they are equal or not
    return max(relative_error((one, b), (one, theirs[key]), floor=_deviation(key, kept)) for key, b in kept.items())


def _deviation(key: str, buffers: Mapping[str, Tensor]) -> float:
    """Give the deviation beside a running mean: a mean that is zero but for rounding has no scale of its own."""
    variance = buffers.get(key.removesuffix("mean") + "var") if key.endswith("running_mean") else None
    return float(variance.max().sqrt()) if variance is not None else 0.0


def _copy_buffers(reference: nn.Module, other: nn.Module, plan: Plan | None = None) -> None:
    """Give another model the buffers of the reference, grown where the channels of a plan reach them."""
    theirs, buffers = dict(other.named_buffers()), dict(reference.named_buffers())
    with torch.no_grad():
        for name, buffer in (after_changes(buffers, plan) if plan is not None else buffers).items():
            if name in theirs:
                theirs[name].copy_(buffer)


def _distance(source: nn.Module, trial: Trial) -> Check:
    """Say how far the network with its approximate sites is from the original."""
    _copy_buffers(trial.reference, source)
    source.eval()
    trial.converted.eval()
    name, detail = "distance to the original", "some sites do not claim to be exact"
    try:
        with torch.no_grad():
            distance = relative_error(trial.outputs(source), trial.outputs(trial.converted))
    except Exception as error:  # noqa: BLE001 - any fault of the user's model, which is reported
        return Check(name=name, outcome="not run", detail=f"the original does not run in float64: {error}")
    return Check(name=name, outcome="measured", value=distance, detail=detail)
