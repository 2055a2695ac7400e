"""Whether a whole-model comparison can see a site at all, and whether its parameters can learn.

A site is live when a random perturbation of its new weights, of their own size, moves the output: by a gradient of a
random loss, and where that shows nothing by a second run. What does not move the output is not proved by comparing
outputs.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.errors import memory_ran_out
from spdify.records import Check
from spdify.sources.random_state import seeded
from spdify.verification.compare import relative_error, tensors_of
from spdify.verification.draws import DrawnByShape
from spdify.verification.inside import outputs_of
from spdify.verification.promotion import wholly_in_float64
from spdify.verification.randomised import whole_batch_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.records import Decision, Mode, Plan

LIVE_THRESHOLD = 1e-6  # a thousand times the model's tolerance: what moves the output less is not proved by it
STEP = 0.1  # of a parameter's own size: what a block that starts silent moves by before its gradients are judged
LIVE_OVER_TOLERANCE = 10.0  # where float32 islands widen the tolerance, a site must still stand out from it


@dataclass
class Trial:
    """Two models that should agree, and what they are run on.

    Attributes:
        reference: The original, with the approximate sites put in.
        converted: All sites put in.
        inputs: Positional and named.
        seed: Of dropout and stochastic depth, which then draw the same for both.
        watched: Paths of modules whose outputs stand for the model's own, where that shows too little.
        promoted: Whether the float32 casts in the models' code are made float64 ones.
    """

    reference: nn.Module
    converted: nn.Module
    inputs: tuple[tuple[Tensor, ...], dict[str, Tensor]]
    seed: int
    watched: tuple[str, ...] = ()
    promoted: bool = False

    def run(self, model: nn.Module, *, inputs: tuple[tuple[Tensor, ...], dict[str, Tensor]] | None = None) -> Any:  # noqa: ANN401 - what models give
        """Run a model with the seed, on other inputs where some are given."""
        args, kwargs = inputs or self.inputs
        with seeded(self.seed), DrawnByShape(), wholly_in_float64() if self.promoted else nullcontext():
            return model(*args, **kwargs)

    def outputs(self, model: nn.Module) -> Any:  # noqa: ANN401 - what models give
        """Run a model with the seed and give what is compared: its output, or those of the watched modules."""
        return outputs_of(model, self.run, self.watched) if self.watched else self.run(model)

    def loss(self, output: object) -> Tensor:
        """Weigh all of an output at random."""
        generator = torch.Generator().manual_seed(self.seed)
        terms = [
            (y * torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)).sum() for y in tensors_of(output)
        ]
        return torch.stack(terms).sum()


def judge_sites(trial: Trial, plan: Plan, *, tolerance: float) -> list[Check]:
    """Check that every site is live, and that a gradient reaches every new parameter.

    Args:
        trial: The models; their weights and buffers are as before afterwards, their modes are not.
        plan: What was applied.
        tolerance: That the outputs were compared with.
    """
    threshold = max(LIVE_THRESHOLD, LIVE_OVER_TOLERANCE * tolerance)
    buffers = {name: b.clone() for name, b in trial.converted.named_buffers()}
    try:
        with whole_batch_statistics(trial.reference, trial.converted):
            return _judge_sites(trial, plan, threshold)
    except Exception as error:  # any fault of the user's model: the outputs' checks name it
        if memory_ran_out(error):
            raise
        detail = f"the model does not run forward and backward in float64: {error}"
        return [Check(name=name, outcome="not run", detail=detail) for name in ("live sites", "gradients")]
    finally:
        restore_buffers(trial.converted, buffers)


def _judge_sites(trial: Trial, plan: Plan, threshold: float) -> list[Check]:
    effects: dict[str, float] = {}
    idle: dict[str, list[str]] = {}
    still: dict[str, list[str]] = {}
    for mode in ("train", "eval"):
        chosen = [d for d in plan.applied if _mode_of(d) == mode]
        for found, new in zip((effects, idle, still), _by_gradient(trial, chosen, mode), strict=True):
            found.update(new)  # type: ignore[attr-defined]
    still = _after_a_step(trial, plan, still)
    dead, weakest = [], math.inf
    for decision in plan.applied:
        if not any(True for _ in trial.converted.get_submodule(decision.site.block_path).parameters()):
            continue  # space-to-depth alone, or nothing: what reads it has the weights
        name = decision.site.name
        effect = effects.get(name, 0.0)
        for mode in reversed(decision.site.modes):  # what runs in both may reach the output in one of them only
            if effect < threshold:
                effect = max(effect, _by_perturbation(trial, decision, mode))
            if mode == _mode_of(decision) and effect < threshold:
                # It has no gradient there either; only one that is seen to act must learn.
                idle.pop(name, None)
                still.pop(name, None)
        if effect < threshold:
            dead.append(name)
        else:
            weakest = min(weakest, effect)
    return [
        Check(
            name="live sites",
            outcome="not run" if dead else "passed",
            value=weakest if weakest < math.inf else None,
            tolerance=threshold,
            detail=f"the whole-model figures say nothing about {', '.join(dead)}" if dead else "",
        ),
        _gradient_check(idle, still, trial, {d.site.name: _mode_of(d) for d in plan.applied}),
    ]


def _after_a_step(trial: Trial, plan: Plan, still: dict[str, list[str]]) -> dict[str, list[str]]:
    """Give the parameters whose gradient is zero also once their block has taken a step.

    A block that starts silent (a last weight of zero) has nothing but that weight to learn before.
    """
    found: dict[str, list[str]] = {}
    for mode in ("train", "eval"):
        chosen = [d for d in plan.applied if d.site.name in still and _mode_of(d) == mode]
        own = [p for d in chosen for p in trial.converted.get_submodule(d.site.block_path).parameters()]
        if not own:
            continue
        kept = [p.detach().clone() for p in own]
        trial.converted.train(mode == "train")
        loss = trial.loss(trial.outputs(trial.converted))
        gradients = torch.autograd.grad(loss, own, allow_unused=True) if loss.requires_grad else [None] * len(own)
        try:
            with torch.no_grad():
                for parameter, gradient in zip(own, gradients, strict=True):
                    if gradient is not None and gradient.any() and gradient.isfinite().all():
                        direction = gradient / gradient.square().mean().sqrt()
                        parameter.sub_(STEP * _sigma(parameter) * direction)
            _, _, again = _by_gradient(trial, chosen, mode)
        finally:
            with torch.no_grad():
                for parameter, value in zip(own, kept, strict=True):
                    parameter.copy_(value)
        found |= again
    return found


def _mode_of(decision: Decision) -> Mode:
    """Give the mode in which a site is looked at: where it is trained, if it is."""
    return "train" if "train" in decision.site.modes else "eval"


def _by_gradient(
    trial: Trial, decisions: list[Decision], mode: str
) -> tuple[dict[str, float], dict[str, list[str]], dict[str, list[str]]]:
    """Give each site's effect on the output (first order, relative), and its parameters with no or zero gradient."""
    trial.converted.train(mode == "train")
    blocks = {d.site.name: dict(trial.converted.get_submodule(d.site.block_path).named_parameters()) for d in decisions}
    wanted = [p for parameters in blocks.values() for p in parameters.values()]
    if not wanted:
        return {}, {}, {}
    output = trial.outputs(trial.converted)
    loss = trial.loss(output)
    scale = math.sqrt(sum(float(y.detach().square().sum()) for y in tensors_of(output)))
    found = torch.autograd.grad(loss, wanted, allow_unused=True) if loss.requires_grad else [None] * len(wanted)
    gradients = dict(zip(map(id, wanted), found, strict=True))
    effects, idle, still = {}, {}, {}
    for site, parameters in blocks.items():
        with_gradient = {name: (p, gradients[id(p)]) for name, p in parameters.items()}
        effects[site] = _effect(with_gradient) / scale if scale else 0.0
        if without := [name for name, (_, g) in with_gradient.items() if _is_idle(g)]:
            idle[site] = without
        if zero := [name for name, (_, g) in with_gradient.items() if _is_still(name, g)]:
            still[site] = zero
    return effects, idle, still


def _effect(parameters: Mapping[str, tuple[Tensor, Tensor | None]]) -> float:
    """Give the smallest first-order effect over the weights, each perturbed; biases count where there is nothing else.

    The smallest, since a bias that moves the output says nothing about the weight beside it.
    """
    generator = torch.Generator().manual_seed(0)
    effects: dict[str, float] = {}
    for name, (parameter, gradient) in parameters.items():
        step = _sigma(parameter) * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        effects[name] = abs(float((gradient * step).sum())) if gradient is not None else 0.0
    weights = [effect for name, effect in effects.items() if _is_weight(name, parameters[name][0])]
    return min(weights or effects.values(), default=0.0)


def _sigma(parameter: Tensor) -> Tensor:
    """Give the size of a perturbation: the parameter's own; for one that is zero at the start, 1/√fan-in."""
    rms = parameter.detach().square().mean().sqrt()
    return rms if rms > 0 else torch.full_like(rms, 1 / math.sqrt(max(parameter[0].numel(), 1)))


def _is_weight(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is no bias; experts have biases of two axes."""
    return parameter.dim() > 1 and not name.endswith("bias")


def _is_idle(gradient: Tensor | None) -> bool:
    """Whether no gradient comes to a parameter; that of taps that read only padding is zero, and comes."""
    return gradient is None or not bool(gradient.isfinite().all())


def _is_still(name: str, gradient: Tensor | None) -> bool:
    """Whether a gradient comes and is zero everywhere; a bias before a batch norm always has such a one."""
    return gradient is not None and not name.endswith("bias") and not gradient.any()


def _gradient_check(
    idle: dict[str, list[str]], still: dict[str, list[str]], trial: Trial, modes: Mapping[str, Mode]
) -> Check:
    """Judge parameters with no gradient, or a zero one, by what the original's own weights get.

    Args:
        idle: By site, names of parameters that no gradient comes to.
        still: By site, names of parameters whose gradient is zero everywhere.
        trial: The models.
        modes: By site, the mode in which it was looked at.
    """
    if not idle and not still:
        return Check(name="gradients", outcome="passed")
    reached: set[str] = set()
    learning: dict[str, bool] = {}
    for mode in ("train", "eval"):
        sites = [site for site in (*idle, *still) if modes[site] == mode]
        if sites:
            found, learns = _in_original(trial, sites, mode)
            reached |= found
            learning |= learns
    faults = [f"{site}.{name}" for site, names in idle.items() if site in reached for name in names]
    for site, names in still.items():
        expected = learning.get(site, site in reached)
        faults += [f"{site}.{name}" for name in names if expected]
    if faults:
        return Check(name="gradients", outcome="failed", detail=f"no gradient reaches {', '.join(faults[:5])}")
    if still:
        quiet = [f"{site}.{name}" for site, names in still.items() for name in names]
        detail = f"on these inputs the gradient is zero for {', '.join(quiet[:5])}: this says nothing about them"
        return Check(name="gradients", outcome="not run", detail=detail)
    without = [f"{site}.{name}" for site, names in idle.items() for name in names]
    detail = f"none reaches {', '.join(without[:5])}, in the original neither"
    return Check(name="gradients", outcome="passed", detail=detail)


def _watch(reached: set[str], path: str, _module: nn.Module, _args: object, output: object) -> object:
    """As a forward hook, note a path once a gradient has come to all that its module gives.

    Some levels of a pyramid may go nowhere; what makes these learns nothing, and that is no fault.
    """
    (first, *others) = tensors_of(output)
    if not torch.is_grad_enabled():
        return output
    if isinstance(output, Tensor) and not first.requires_grad:
        first = first.detach().requires_grad_().clone()
    learning = [tensor for tensor in (first, *others) if tensor.requires_grad]
    waiting = set(range(len(learning)))

    def note(number: int, gradient: Tensor) -> None:
        if gradient.any():
            waiting.discard(number)
        if not waiting:
            reached.add(path)

    for number, tensor in enumerate(learning):
        tensor.register_hook(partial(note, number))  # type: ignore[no-untyped-call]
    return first if isinstance(output, Tensor) else output


def _in_original(trial: Trial, paths: list[str], mode: str) -> tuple[set[str], dict[str, bool]]:
    """Give the sites whose output a gradient reaches in the original, and whether their own weights, if any, learn."""
    reached: set[str] = set()
    learning: dict[str, bool] = {}

    trial.reference.train(mode == "train")
    # A functional call has no module: what its owner puts out stands for it.
    modules = {path: trial.reference.get_submodule(path.partition("#")[0]) for path in paths}
    handles = [module.register_forward_hook(partial(_watch, reached, path)) for path, module in modules.items()]
    try:
        loss = trial.loss(trial.outputs(trial.reference))
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        for path in paths:
            weight = getattr(modules[path], "weight", None) if "#" not in path else None
            if isinstance(weight, nn.Parameter):
                learning[path] = weight.grad is not None and bool(weight.grad.any())
    finally:
        for handle in handles:
            handle.remove()
        trial.reference.zero_grad(set_to_none=True)
    return reached, learning


def _by_perturbation(trial: Trial, decision: Decision, mode: str) -> float:
    """Perturb the site's weights and give how far the output moves: there may be an effect without a gradient."""
    model = trial.converted
    model.train(mode == "train")
    block = model.get_submodule(decision.site.block_path)
    kept = {name: p.detach().clone() for name, p in block.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = trial.outputs(model)
        silent = [p for name, p in block.named_parameters() if not name.endswith("bias") and not p.any()]
        weights = [p for name, p in block.named_parameters() if _is_weight(name, p)]
        weights += [p for p in silent if not any(p is other for other in weights)]
        if decision.site.inserted and silent:
            # It acts by what is zero at the start. Were its other weights moved too, a narrow ReLU in it might close.
            weights = silent
        for parameter in weights or block.parameters():
            step = _sigma(parameter) * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(step.to(parameter))
        moved = relative_error(before, trial.outputs(model))
        for name, parameter in block.named_parameters():
            parameter.copy_(kept[name])
    return moved


def restore_buffers(model: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Give a model's buffers, in place, the values that they had."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
