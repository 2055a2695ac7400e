"""What the tests of rewrites share that put a block behind stages and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError
from torch.func import functional_call

from spdify.records import Call, Geometry, Site
from spdify.rewrites import REGISTRY

if TYPE_CHECKING:
    from torch import nn

    from spdify.records import Operator
    from spdify.rewrites import Rewrite

#: Odd, unequal sizes of maps.
SIZES = ((7, 5), (3, 3), (2, 9))


def made(name: str, **params: Any) -> Rewrite[Any]:  # noqa: ANN401 - parameters as a rulebook has them
    """Make a rewrite as a rule does."""
    kind = REGISTRY[name]
    return kind(kind.params_type(**params))


def end(
    operator: Operator = "stage_end", *, path: str = "layer2", channels: int = 8, stage: int | None = 3, stages: int = 4
) -> Site:
    """Describe the end of a stage or block."""
    shape = (1, channels, 7, 5)
    window = Geometry(
        in_channels=channels,
        out_channels=channels,
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
    )
    return Site(
        path=path,
        operation="end:0",
        operator=operator,
        type_name="Sequential",
        geometry=window,
        calls=(Call(input=shape, output=shape),),
        stage=stage,
        stages=stages,
    )


def filled(rewrite: Rewrite[Any], site: Site) -> nn.Module:
    """Build the block as the engine does: without weights, which it then is given."""
    with torch.device("meta"):
        block = rewrite.build(site)
    block.load_state_dict(rewrite.weights(site, {}), assign=True)
    return block


def check_starts_as_the_identity(rewrite: Rewrite[Any], site: Site) -> None:
    """Hold that the block is exact in both modes, and passes gradients on as they are."""
    assert rewrite.check(site) is None
    assert rewrite.keep(site) is None
    assert rewrite.claim(site).value == "exact"
    assert rewrite.leaves(site) is None
    assert rewrite.reads(site) == {}
    block = filled(rewrite, site).double()
    for training in (True, False):
        block.train(training)
        for size in SIZES:
            x = torch.randn(2, site.geometry.in_channels, *size, dtype=torch.float64, requires_grad=True)
            y = block(x)
            cotangent = torch.randn_like(y)
            (gradient,) = torch.autograd.grad(y, x, cotangent)
            assert torch.equal(y, x)
            assert torch.allclose(gradient, cotangent, rtol=0, atol=1e-12)


def check_weights(rewrite: Rewrite[Any]) -> None:
    """Hold that the weights are all that the block has, the same each time, and others at another place."""
    site, other = end(), end(path="layer3")
    torch.manual_seed(1)
    first = rewrite.weights(site, {})
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again, elsewhere = rewrite.weights(site, {}), rewrite.weights(other, {})
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers were drawn from"
    assert first.keys() == rewrite.build(site).state_dict().keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, elsewhere[name]) for name, tensor in first.items())
    x = torch.randn(2, 8, 7, 5)
    state = {name: tensor + 0.1 if tensor.is_floating_point() else tensor for name, tensor in first.items()}
    assert not torch.equal(functional_call(rewrite.build(site), state, x), x), "it does something with other weights"


def check_places(name: str, *, standard: str) -> None:
    """Hold that ends are chosen by position and stages, and nothing else is taken."""
    assert made(name).params.stages == standard
    for stages, chosen in (("-1", {3}), ("1:", {1, 2, 3}), (":2", {0, 1}), (":", {0, 1, 2, 3}), ("0", {0})):
        kept = [made(name, stages=stages).keep(end(stage=i)) for i in range(4)]
        assert {i for i, reason in enumerate(kept) if reason is None} == chosen
        assert all(reason is None or f"stages = {stages}" in reason for reason in kept)
    blocks = made(name, position="block", stages=":")
    assert blocks.keep(end("block_end")) is None
    assert blocks.keep(end("block_end", stage=None)) is None
    assert "position = block" in str(blocks.keep(end()))
    assert "position = stage" in str(made(name, stages=":").keep(end("block_end")))
    assert made(name, stages="-1").keep(end(stage=None)) is not None
    pool = end().model_copy(update={"operator": "max_pool"})
    assert "this is a max_pool" in str(made(name).check(pool))
    for wrong in ("last", "1-2", "", True, 1.5, "1:2:3"):
        check_refused(name, "stages", stages=wrong)
    check_refused(name, "position", position="start")
    check_refused(name, "nothing", nothing=1)


def check_refused(name: str, word: str, **params: Any) -> None:  # noqa: ANN401 - wrong parameters
    """Hold that a parameter is refused, by its name."""
    with pytest.raises(ValidationError, match=word):
        made(name, **params)
