"""Sites made from modules, and the two verbs of these tests: check_refused and check_transformed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call

from spdify.graph import survey
from spdify.records import Call, Geometry, Inputs, InputSpec, Layout, Operator, Shape, Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spdify.rewrites import Rewrite

TOLERANCE = 1e-12


def per_axis(value: Any, dims: int) -> Shape:  # noqa: ANN401 - a number or a tuple, as torch.nn keeps it
    return (value,) * dims if isinstance(value, int) else tuple(value)


def site_of(module: nn.Module, *, channels: int = 0, **fields: Any) -> Site:  # noqa: ANN401 - fields of Site
    """Describe a convolution or pool of torch.nn as a survey would; `channels` is needed for pools."""
    name = type(module).__name__
    dims = int(name[-2])
    operator: Operator = "conv" if "Conv" in name else "max_pool" if "Max" in name else "avg_pool"
    numbers: dict[str, Any] = {
        "kernel": per_axis(module.kernel_size, dims),
        "stride": per_axis(module.stride, dims),
        "padding": per_axis(module.padding, dims),
        "dilation": per_axis(getattr(module, "dilation", 1), dims),
    }
    names = ("groups", "padding_mode", "ceil_mode", "count_include_pad", "divisor_override")
    numbers |= {name: getattr(module, name) for name in names if hasattr(module, name)}
    geometry = Geometry(
        in_channels=getattr(module, "in_channels", channels),
        out_channels=getattr(module, "out_channels", channels),
        bias=getattr(module, "bias", None) is not None,
        **numbers,
    )
    out = tuple(geometry.output_size(16, axis) for axis in range(dims))
    call = Call(input=(1, geometry.in_channels, *(16,) * dims), output=(1, geometry.out_channels, *out))
    found = {"path": "stem.op", "operator": operator, "type_name": name, "geometry": geometry, "calls": (call,)}
    return Site(**(found | fields))


def check_refused(rewrite: Rewrite[Any], site: Site, reason: str) -> None:
    """Hold that the rewrite refuses the site and says why."""
    found = rewrite.check(site)
    assert found is not None
    assert reason in found


def surveyed(module: nn.Module, *shapes: Shape) -> Site:
    """Give the site that a survey finds in a module, alone in a network; `shapes` are those of one sample's inputs."""

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = module.float()  # an earlier test may have left it in float64

        def forward(self, *args: Tensor) -> Any:  # noqa: ANN401 - what the module gives
            return self.op(*args)

    seen = survey(Alone(), Inputs(args=tuple(InputSpec(shape=(1, *shape)) for shape in shapes)))
    assert not seen.disagreements
    (site,) = seen.sites
    return site


def check_transformed(
    rewrite: Rewrite[Any], module: nn.Module, sizes: Sequence[Shape], *, channels: int = 0, site: Site | None = None
) -> nn.Module:
    """Hold that the block computes what the module does, with the same gradients; give the block.

    Where more channels leave the block, that holds for what the layout says that they were.
    """
    site = site or site_of(module, channels=channels)
    assert rewrite.check(site) is None
    assert rewrite.keep(site) is None
    assert rewrite.claim(site).value == "exact"
    layout = rewrite.leaves(site)
    module = module.double()
    old = {name: torch.randn_like(p).requires_grad_() for name, p in module.named_parameters()}
    kept = {name: tensor.detach().clone() for name, tensor in old.items()}
    block = rewrite.build(site).double()
    new = {name: tensor.double() for name, tensor in rewrite.weights(site, old).items()}
    assert set(new) == set(block.state_dict())
    assert {name: tuple(t.shape) for name, t in old.items()} == rewrite.reads(site)
    assert {name: t.shape for name, t in new.items()} == {name: t.shape for name, t in block.state_dict().items()}
    for shapes in (shapes for size in sizes for shapes in rewrite.input_shapes(site, size, batch=2)):
        given = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
        expected, actual = functional_call(module, old, given), _before(functional_call(block, new, given), layout)
        torch.testing.assert_close(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)
        cotangent = torch.randn_like(expected)
        inputs: list[Tensor] = [*given, *old.values()]
        wanted = torch.autograd.grad(expected, inputs, cotangent)
        torch.testing.assert_close(torch.autograd.grad(actual, inputs, cotangent, retain_graph=True), wanted)
    assert all(torch.equal(old[name], kept[name]) for name in old), "weights() changed what it was given"
    return block


def _before(y: Tensor, layout: Layout | None) -> Tensor:
    """Give the old channels of a block's output."""
    if layout is None:
        return y
    assert (y.shape[1], layout.inner, len(layout.runs)) == (layout.new, 1, 1)
    copies = y.unflatten(1, layout.runs[0])
    return copies.mean(2) if layout.how == "mean" else copies[:, :, 0]
