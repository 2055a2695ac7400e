"""The comparisons of a whole model with its conversion, in one mode after the other."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from spdify.engine.carrying import before_changes
from spdify.errors import memory_ran_out
from spdify.records import Check, Plan
from spdify.verification.carried_proof import hold_shared_norms
from spdify.verification.compare import carries_signal, relative_error, tensors_of
from spdify.verification.inside import compare_inside, find_watched
from spdify.verification.islands import find_islands
from spdify.verification.liveness import Trial, restore_buffers
from spdify.verification.losses import gradient_error, gradients_of, loss_error, losses_of, training_inputs
from spdify.verification.randomised import whole_batch_statistics
from spdify.verification.rounding import (
    NOISE,
    ROUNDING_SHARE,
    STEEP_TOLERANCE,
    buffer_error,
    noise,
    nudged,
    nudged_weights,
    steep,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spdify.graph.detectors import Detector
    from spdify.verification.inside import Agreement

MODEL_TOLERANCE = 1e-9
ISLAND_TOLERANCE = 1e-5  # float32 rounding through a network, where the model itself computes in float32
LOSSES, GRADIENTS = "losses, train", "gradients of losses, train"
#: A gradient sums over all places of all layers above, of both signs: seven detectors came to 2e-12 at most.
GRADIENT_TOLERANCE = 1e-7


def replaced_modules(plan: Plan) -> frozenset[str]:
    """Give the paths of the called modules that a plan replaces, or has put out more channels."""
    sites = {d.site.path for d in plan.applied if not d.site.operation}
    # Those that give more channels than before are no more to be compared than a block is inside.
    return frozenset(sites | {a.path for a in plan.adjustments if a.gives is not None})


class Comparison:
    """The comparisons of both models; it remembers what float32 islands cost.

    Attributes:
        tolerance: Largest error allowed so far.
        trained: Whether both models ran in train mode.
        ran: Whether both ran the last time.
    """

    def __init__(self, trial: Trial, plan: Plan, remark: str) -> None:
        """Compare the models of `trial`, converted by `plan`; `remark` goes into each check."""
        self.tolerance = MODEL_TOLERANCE
        self._trial, self._plan, self._remark, self._held = trial, plan, remark, ""
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
        held = hold_shared_norms(trial.reference, self._plan)
        hold_shared_norms(trial.converted, self._plan)
        self._held = f"{len(held)} norms that phases share hold their statistics" if held and mode == "train" else ""
        self._before = {key: b.clone() for key, b in trial.reference.named_buffers()}
        with torch.set_grad_enabled(gradients), whole_batch_statistics(trial.reference, trial.converted):
            try:
                expected = self._run_original()
            except Exception as error:  # any fault of the user's model, which is reported
                if memory_ran_out(error):
                    raise
                return Check(name=name, outcome="not run", detail=f"the original does not run in float64: {error}")
            try:
                actual = trial.run(trial.converted)
            except Exception as error:  # the original runs, so this is a fault of the conversion
                if memory_ran_out(error):
                    raise
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
            return Check(name=name, outcome="passed", value=error, tolerance=MODEL_TOLERANCE, detail=self._words())
        remark = self._words()
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

    def _words(self) -> str:
        """Say how the models are compared."""
        return "; ".join(filter(None, (self._remark, self._held)))

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
        if not self._trial.watched:
            rounding = self._rounding(expected=expected)
            if rounding >= NOISE:
                return Check(name=name, outcome="not run", value=error, detail=noise(rounding))
            share = ROUNDING_SHARE * rounding
            if error <= min(share, STEEP_TOLERANCE):
                self.tolerance = share
                return Check(name=name, outcome="passed", value=error, tolerance=share, detail=steep(share))
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
            return Check(name=name, outcome="not run", detail=self._held or "the model keeps no statistics")
        error = buffer_error(kept, before_changes(theirs, self._plan))
        tolerance, detail = self.tolerance, ""
        if tolerance < error <= STEEP_TOLERANCE and error <= (share := ROUNDING_SHARE * self._rounding(kept)):
            tolerance, detail = share, steep(share)
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
        with torch.no_grad(), self._states(), nudged_weights(trial.reference, seed=trial.seed):
            output = trial.run(trial.reference, inputs=nudged(trial.inputs, seed=trial.seed))
            moved = dict(trial.reference.named_buffers())
            found = buffer_error(kept, moved) if kept else relative_error(expected, output)
        return found if math.isfinite(found) else 0.0  # what cannot be compared excuses nothing
