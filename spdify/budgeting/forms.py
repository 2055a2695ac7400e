"""The forms that a budget may choose from at each site, and what each costs: counted on the block itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.engine import make_rewrite
from spdify.graph.census import take_census
from spdify.records import Inputs, InputSpec, SiteForm, SiteOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from spdify.records import Call, Plan, Shape, Site
    from spdify.rewrites import Rewrite


class Called(nn.Module):
    """A block, or what it stands for, with what it is called with beside its input: weights, or how to mix them.

    Args:
        operator: What is run.
        given: Further arguments.
    """

    def __init__(self, operator: nn.Module, given: Sequence[Tensor] = ()) -> None:
        """Take both."""
        super().__init__()
        self.operator, self.given = operator, tuple(given)

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        result: Tensor = self.operator(x, *self.given)
        return result


def site_options(
    model: nn.Module, plan: Plan, fixed: Mapping[str, Collection[str]]
) -> tuple[tuple[SiteOptions, ...], dict[str, str]]:
    """Give the exact forms of every site that the rules would rewrite, with their costs in MACs and parameters.

    Args:
        model: The original.
        plan: What the rules decide: what they keep or refuse stays so, and is not offered.
        fixed: By rule, parameters whose values were set by hand: only forms that have them are offered.

    Returns:
        The options, and the reason, by site, where there is no form that can be bought.
    """
    known: dict[str, tuple[SiteForm, ...]] = {}
    options, reasons = [], {}
    for decision in plan.applied:
        site = decision.site
        rewrite = make_rewrite(decision.rewrite or "", decision.params, where=site.name)
        if rewrite.leaves(site) is not None or rewrite.resizes() or rewrite.activation(site):
            reasons[site.name] = f"{decision.rewrite} changes what other layers read and cost"
            continue
        held = fixed.get(decision.rule or "", ())
        key = f"{_shape_of(site)} {decision.rewrite} {decision.params} {sorted(held)}"
        if key not in known:
            known[key] = _priced(site, _distinct(site, rewrite, held))
        before = _params(model, site)
        forms = tuple(f.model_copy(update={"cost": f.cost | {"params": f.cost["params"] - before}}) for f in known[key])
        if not forms:
            reasons[site.name] = f"{decision.rewrite} has no exact form that the rules allow"
            continue
        standard = next((form.name for form in forms if form.params == decision.params), forms[0].name)
        options.append(
            SiteOptions(
                site=site.name, size=_size(site), rewrite=decision.rewrite or "", forms=forms, standard=standard
            )
        )
    return tuple(options), reasons


def _shape_of(site: Site) -> str:
    """Give all that the cost of a site's forms depends on."""
    own = f"{site.geometry!r} {site.type_name} {site.operation} {site.constants} {site.channels} {site.modes}"
    return f"{own} {site.axes} {site.starts} {site.rank} {site.calls} {site.macs} {site.obstacles}"


def _distinct(site: Site, rewrite: Rewrite[Any], held: Collection[str]) -> dict[str, Rewrite[Any]]:
    """Give the exact forms of a site that make different blocks; of equal ones the rules' own, else the first."""
    wanted = rewrite.params.model_dump()
    found: dict[str, tuple[str, Rewrite[Any]]] = {}
    for name, form in rewrite.forms(site).items():
        params = form.params.model_dump()
        if any(params[key] != wanted[key] for key in held) or form.claim(site).value != "exact":
            continue
        block = _layout(site, form)
        key = f"{block!r} {[tuple(p.shape) for p in block.parameters()]}"
        if key not in found or params == wanted:
            found[key] = (found[key][0] if key in found else name, form)
    return dict(found.values())


def _layout(site: Site, rewrite: Rewrite[Any]) -> nn.Module:
    with torch.device("meta"):
        return rewrite.build(site)


def _priced(site: Site, forms: Mapping[str, Rewrite[Any]]) -> tuple[SiteForm, ...]:
    """Count each form; its parameters are all of its own, those of the site are not yet taken off."""
    priced = []
    for name, form in forms.items():
        block = _layout(site, form)
        macs = sum(_macs(block, site, form, call) for call in site.calls if "eval" in site.modes)
        params = sum(p.numel() for p in block.parameters())
        cost = {"macs": macs - site.macs, "params": params}
        priced.append(SiteForm.model_validate({"name": name, "params": form.params.model_dump(), "cost": cost}))
    return tuple(priced)


def _macs(block: nn.Module, site: Site, rewrite: Rewrite[Any], call: Call) -> int:
    called = Called(block, [torch.empty(shape, device="meta") for shape in beside(site, rewrite, call)])
    inputs = Inputs(args=(InputSpec(shape=handed_over(site, call)),))
    return take_census(called, inputs, mode="eval", batch=call.input[0]).total_macs


def handed_over(site: Site, call: Call) -> Shape:
    """Give the shape of a call's input as the network has it: a slice's tensor may have its channels elsewhere."""
    if not site.axes:
        return call.input
    sizes = {0: call.input[0], **dict(zip(site.axes, call.input[2:], strict=True))}
    return tuple(sizes.get(axis, call.input[1]) for axis in range(len(call.input)))


def beside(site: Site, rewrite: Rewrite[Any], call: Call) -> tuple[Shape, ...]:
    """Give the shapes of what a site is called with beside its input."""
    spatial = call.input[-site.geometry.dims :]
    return rewrite.input_shapes(site, spatial, batch=call.input[0])[0][1:]


def _size(site: Site) -> Shape:
    """Give the spatial size of a site's input, in its first call."""
    return site.calls[0].input[-site.geometry.dims :]


def _params(model: nn.Module, site: Site) -> int:
    """Give the number of parameters that go away with a site's module; a call or an insertion has none of its own."""
    return 0 if site.operation else sum(p.numel() for p in model.get_submodule(site.path).parameters())
