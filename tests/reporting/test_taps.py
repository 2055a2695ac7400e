from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn

import spdify
from spdify.reporting.taps import ReadPositions

if TYPE_CHECKING:
    from spdify.pipeline import Conversion
    from spdify.records import Kernel, Taps

CONVOLUTIONS = {
    "3x3": nn.Conv2d(3, 4, 3, 2, 1),
    "1x1": nn.Conv2d(3, 4, 1, 2),
    "patches": nn.Conv2d(3, 4, 4, 4),
    "dilated": nn.Conv2d(3, 4, 3, 2, 2, dilation=2),
    "depthwise": nn.Conv2d(3, 3, 5, 2, 2, groups=3),
    "unequal": nn.Conv2d(3, 4, (3, 1), (2, 1), (1, 0)),
    "stride 3": nn.Conv2d(3, 4, 3, 3, bias=False),
}
FORMS = ((), ("strided-conv.kernel=odd", "strided-conv.pointwise=dense"), ("strided-conv.pointwise=grouped",))
POOLS = {
    "max": nn.MaxPool2d(3, 2, 1), "average": nn.AvgPool2d(2), "ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "gaps": nn.AvgPool2d(1, 2),
}  # fmt: skip


def converted(module: nn.Module, size: int = 13, overrides: tuple[str, ...] = (), rules: str = "spd") -> Conversion:
    network = nn.Sequential(module, nn.Conv2d(4 if isinstance(module, nn.Conv2d) and module.groups == 1 else 3, 2, 1))
    return spdify.convert(
        network, example_input=torch.randn(1, 3, size, size), overrides=overrides, rules=rules, proof="site"
    )


def kernel_of(conversion: Conversion) -> Kernel:
    (kernel,) = conversion.report.kernels
    return kernel


def places(taps: Taps) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Phase and tap of each old tap, along every axis."""
    each = math.prod(taps.kernel)

    def split(number: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(i) for i in torch.unravel_index(torch.tensor(number), shape))

    return {
        origin: (split(i // each, taps.scale), split(i % each, taps.kernel))
        for i, origin in enumerate(taps.origins)
        if origin >= 0
    }


@pytest.mark.parametrize("overrides", FORMS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weights_are_where_the_report_says(name: str, overrides: tuple[str, ...]) -> None:
    conv = CONVOLUTIONS[name]
    conversion = converted(conv, overrides=overrides)
    kernel = kernel_of(conversion)
    block = conversion.model[0]  # type: ignore[index]
    old = conversion.original[0].weight.flatten(2)  # type: ignore[index, union-attr]
    moved: set[int] = set()
    for taps in kernel.after:
        new = block.get_parameter(taps.tensor)
        split = new.reshape(new.shape[0], -1, math.prod(taps.scale), math.prod(taps.kernel)).flatten(2)
        for place, origin in enumerate(taps.origins):
            if origin >= 0:
                assert torch.equal(split[:, :, place], old[:, :, origin])
                moved.add(origin)
            else:
                assert taps.fresh[place] == bool(split[:, :, place].any())
            size = split[:, :, place].square().mean().sqrt().item()
            assert taps.sizes[place] == pytest.approx(size, rel=1e-3, abs=1e-12)
    assert moved == set(range(old.shape[2]))


def test_a_pool_reads_its_window_through_the_phases() -> None:
    (after,) = kernel_of(converted(POOLS["max"])).after
    found = places(after)
    assert sorted(found) == list(range(9))
    # Tap u of a 3×3 window with padding 1 reads position 2·i + u - 1.
    for tap, (phase, at) in found.items():
        for axis, u in enumerate(divmod(tap, 3)):
            assert 2 * (at[axis] - 1) + phase[axis] == u - 1


def test_standardised_weights_stay_and_new_ones_lie_beside_them() -> None:
    conversion = converted(StdConv2d(3, 4, 3, stride=2, padding=1))
    stays, new = kernel_of(conversion).after
    assert (stays.tensor, stays.scale, stays.origins) == ("weight", (1, 1), tuple(range(9)))
    assert (new.tensor, new.scale, set(new.origins), any(new.fresh)) == ("phase_weight", (2, 2), {-1}, False)


def test_released_forms_keep_the_kernel() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 1))
    released = spdify.convert(network, example_input=torch.randn(1, 3, 16, 16), rules="spd-released", proof="site")
    stem, later = released.report.kernels
    assert stem.after[0].scale == (2, 2)
    assert [(taps.scale, taps.origins) for taps in later.after] == [((1, 1), tuple(range(9)))]


def test_what_starts_with_weights_of_its_own_has_no_picture() -> None:
    conversion = converted(CONVOLUTIONS["3x3"], rules="spd-lowres", overrides=("stem.activation=keep",), size=16)
    assert conversion.plan.applied
    assert conversion.report.kernels == ()


def read(function: nn.Module, x: Tensor) -> float:
    """Share of positions with a gradient, with positive weights and inputs so that nothing cancels."""
    x = x.abs().double().requires_grad_()
    for parameter in function.double().parameters():
        parameter.data = torch.rand_like(parameter) + 0.1
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return (gradient != 0).any(1).double().mean().item()


@pytest.mark.parametrize("size", [12, 13])
@pytest.mark.parametrize("name", [*CONVOLUTIONS, "average", "ceil", "gaps"])
def test_shares_of_positions_are_those_of_gradients(name: str, size: int) -> None:
    module = (CONVOLUTIONS | POOLS)[name]
    conversion = converted(module, size=size)
    (decision,) = conversion.plan.applied
    (cost,) = conversion.report.sites
    x = torch.randn(1, 3, size, size)
    assert decision.site.positions_read == pytest.approx(read(conversion.original[0], x))  # type: ignore[index]
    assert cost.positions_read == pytest.approx(read(conversion.model[0], x))  # type: ignore[index]
    assert cost.positions_read >= decision.site.positions_read - 1e-9


def test_a_shortcut_that_read_a_quarter_reads_all() -> None:
    conversion = converted(CONVOLUTIONS["1x1"], size=12)
    assert conversion.plan.applied[0].site.positions_read == 0.25
    assert conversion.report.sites[0].positions_read == 1


@pytest.mark.parametrize("module", [nn.Conv2d(3, 4, 3, 150, 1), nn.AvgPool2d(40)])
def test_windows_with_too_many_places_have_no_picture_and_do_no_harm(module: nn.Module) -> None:
    assert converted(module, size=301).report.kernels == ()


def test_equal_sites_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from spdify.reporting import taps

    calls = []
    monkeypatch.setattr(taps, "_share_read", lambda *args: calls.append(args) or 0.5)
    (decision,) = converted(CONVOLUTIONS["3x3"]).plan.applied
    calls.clear()
    positions = ReadPositions()
    assert positions.share(decision) == positions.share(decision) == 0.5
    assert len(calls) == 1
