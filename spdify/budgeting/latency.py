"""Latency, measured: PyTorch on this machine, with the threads that it has, at batch 1, in the form that is deployed.

Weights are moved a little before anything is timed: the deployed form of weights that nobody has trained is the
original operator, and says nothing about a network that was trained.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from spdify.benchmarking import forward_of, ratio_to
from spdify.budgeting.forms import Called, beside, handed_over
from spdify.engine import fuse, make_rewrite
from spdify.graph.structure import detached_copy
from spdify.records import LatencyCheck, SiteOptions
from spdify.sources import example_inputs
from spdify.verification.site_proof import original_of, what_is_proved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spdify.records import Call, Decision, Inputs

SITE_ROUNDS, SITE_SECONDS = 9, 0.05
WHOLE_ROUNDS, WHOLE_SECONDS = 15, 0.2
DEVIATION = 0.01  # by which weights are moved
ORIGINAL, CONVERTED = "original", "converted"


class Clock(Protocol):
    """Times several calls in turn, as `paired_seconds` does."""

    def __call__(
        self, contestants: Mapping[str, Callable[[], object]], /, *, rounds: int, least_seconds: float
    ) -> Mapping[str, Sequence[float]]:
        """Give, by name, the seconds of one call, for each round."""


def network_seconds(model: nn.Module, inputs: Inputs, clock: Clock) -> float:
    """Give how long a forward pass of a network takes, in seconds."""
    times = clock({ORIGINAL: _pass(_quiet(model), inputs)}, rounds=WHOLE_ROUNDS, least_seconds=WHOLE_SECONDS)
    return statistics.median(times[ORIGINAL])


def with_latency(
    model: nn.Module, sites: tuple[SiteOptions, ...], decisions: Mapping[str, Decision], clock: Clock
) -> tuple[SiteOptions, ...]:
    """Give the sites with what each form takes longer than the original operator, in seconds.

    Args:
        model: The original; not changed.
        sites: What may be bought.
        decisions: The rules' decisions, by name of the site.
        clock: What times.
    """
    known: dict[str, dict[str, float]] = {}
    timed = []
    for options in sites:
        decision = decisions[options.site]
        key = f"{what_is_proved(decision)} {decision.site.calls} {decision.site.modes} {options.forms}"
        if key not in known:
            known[key] = _slower(model, decision, options, clock)
        forms = tuple(f.model_copy(update={"cost": f.cost | {"latency": known[key][f.name]}}) for f in options.forms)
        timed.append(options.model_copy(update={"forms": forms}))
    return tuple(timed)


def compare(model: nn.Module, converted: nn.Module, inputs: Inputs, clock: Clock) -> LatencyCheck:
    """Time a converted network in its deployed form beside the original, in turn.

    Args:
        model: The original; not changed.
        converted: With the weights it begins with; not changed.
        inputs: Of a forward pass.
        clock: What times.
    """
    runs = {
        ORIGINAL: _pass(_quiet(model), inputs),
        CONVERTED: _pass(fuse(as_if_trained(converted)).eval(), inputs),
    }
    times = clock(runs, rounds=WHOLE_ROUNDS, least_seconds=WHOLE_SECONDS)
    found = ratio_to(times[ORIGINAL], times[CONVERTED])
    return LatencyCheck(
        rounds=len(times[ORIGINAL]),
        ratio=found.median,
        low=found.low,
        high=found.high,
        threads=torch.get_num_threads(),
        device=str(_device(model)),
    )


def as_if_trained(module: nn.Module) -> nn.Module:
    """Copy a module with its weights moved a little, the same way every time."""
    twin = detached_copy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(DEVIATION * noise.to(parameter))
    return twin


def _slower(model: nn.Module, decision: Decision, options: SiteOptions, clock: Clock) -> dict[str, float]:
    """Give, by form, by how much it is slower over all calls of a site; medians of pairs."""
    site = decision.site
    slower = dict.fromkeys((form.name for form in options.forms), 0.0)
    for call in site.calls if "eval" in site.modes else ():
        runs = {ORIGINAL: _site_run(original_of(model, decision), decision, call, model)}
        for form in options.forms:
            rewrite = make_rewrite(options.rewrite, form.params, where=site.name)
            with torch.random.fork_rng(devices=[]):  # a block draws weights
                block = nn.Sequential(rewrite.build(site)).to(_dtype(model))
            deployed = fuse(as_if_trained(block)).eval()[0]  # type: ignore[index]
            runs[form.name] = _site_run(deployed, decision, call, model)
        times = clock(runs, rounds=SITE_ROUNDS, least_seconds=SITE_SECONDS)
        for name in slower:
            pairs = zip(times[ORIGINAL], times[name], strict=True)
            slower[name] += statistics.median(b - a for a, b in pairs)
    return slower


def _site_run(operator: nn.Module, decision: Decision, call: Call, model: nn.Module) -> Callable[[], object]:
    rewrite = make_rewrite(decision.rewrite or "", decision.params, where=decision.site.name)
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(_device(model), _dtype(model))

    given = [random(shape) for shape in beside(decision.site, rewrite, call)]
    return forward_of(Called(operator.to(_device(model)), given), random(handed_over(decision.site, call)))


def _pass(network: nn.Module, inputs: Inputs) -> Callable[[], object]:
    args, kwargs = example_inputs(inputs, batch=1, seed=0)
    device = _device(network)
    return forward_of(network, *(x.to(device) for x in args), **{name: x.to(device) for name, x in kwargs.items()})


def _quiet(model: nn.Module) -> nn.Module:
    return detached_copy(model).eval()


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.get_default_dtype())
