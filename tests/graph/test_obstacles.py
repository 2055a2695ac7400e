"""Facts about a module that make replacing it unsafe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm.layers
import torch
from timm.layers.conv2d_same import Conv2dSameExport
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from spdify.graph import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Inputs


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, stride=2, padding=1)


def hooked(hook: str) -> nn.Module:
    module = conv()
    getattr(module, hook)(lambda *_: None)
    return module


def pruned() -> nn.Module:
    module = conv()
    prune.l1_unstructured(module, "weight", 0.5)
    return module


def with_another_parameter() -> nn.Module:
    module: nn.Module = timm.layers.ScaledStdConv2d(3, 3, 3, stride=2)
    module.register_parameter("other", nn.Parameter(torch.zeros(1)))
    return module


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: parametrizations.weight_norm(conv()), "parametrized"),
        (lambda: parametrizations.spectral_norm(conv()), "parametrized"),
        (lambda: nn.utils.weight_norm(conv()), "forward hooks"),
        (lambda: nn.utils.spectral_norm(conv()), "forward hooks"),
        (pruned, "forward hooks"),
        (lambda: hooked("register_forward_hook"), "forward hooks"),
        (lambda: hooked("register_full_backward_hook"), "backward hooks"),
        (lambda: Conv2dSameExport(3, 3, 3, stride=2), "Conv2dSameExport computes more than Conv2d"),
        (lambda: parametrizations.weight_norm(timm.layers.StdConv2d(3, 3, 3, stride=2)), "parametrized"),
        (with_another_parameter, "it holds more than the parameters of a ScaledStdConv2d: other"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_module_with_an_obstacle_names_it(
    make: Callable[[], nn.Module], words: str, inputs_of: Callable[..., Inputs]
) -> None:
    seen = survey(nn.Sequential(make()), inputs_of(3, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert words in "; ".join(site.obstacles)


def test_a_plain_subclass_is_no_obstacle(inputs_of: Callable[..., Inputs]) -> None:
    class Renamed(nn.Conv2d):
        def reset_parameters(self) -> None:
            nn.init.zeros_(self.weight)

    (site,) = survey(nn.Sequential(Renamed(3, 3, 3, 2)), inputs_of(3, 16, 16)).sites
    assert site.obstacles == ()
    assert site.type_name == "Renamed"


def test_a_weight_of_two_owners(inputs_of: Callable[..., Inputs]) -> None:
    model = nn.Sequential(conv(), conv())
    model[1].weight = model[0].weight
    first, second = survey(model, inputs_of(3, 16, 16)).sites
    assert first.obstacles == ("its weight is shared with 1.weight",)
    assert second.obstacles == ("its weight is shared with 0.weight",)


def test_a_weight_that_others_read(inputs_of: Callable[..., Inputs]) -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.conv.weight.mean()

    (site,) = survey(Reading(), inputs_of(3, 16, 16)).sites
    assert site.obstacles == ("its weight is read from outside the module",)


def test_indices_that_somebody_wants(inputs_of: Callable[..., Inputs]) -> None:
    class Unpooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.unpool = nn.MaxUnpool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            pooled = self.pool(x)
            return self.unpool(pooled[0], pooled[1])

    seen = survey(Unpooling(), inputs_of(3, 16, 16))
    assert not seen.disagreements
    assert seen.sites[0].obstacles == ("it returns indices",)


def test_a_pool_called_with_other_channel_counts(inputs_of: Callable[..., Inputs]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.conv = nn.MaxPool2d(2), nn.Conv2d(3, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.conv(self.pool(x)))

    (site,) = survey(Twice(), inputs_of(3, 16, 16)).sites
    assert len(site.calls) == 2
    assert (site.obstacles, site.channels) == ((), (3, 5))


def test_positions_read(inputs_of: Callable[..., Inputs]) -> None:
    def share(module: nn.Module, size: int = 16) -> float:
        (site,) = survey(nn.Sequential(module), inputs_of(3, size, size)).sites
        return site.positions_read

    assert share(nn.Conv2d(3, 3, 1, 2)) == pytest.approx(1 / 4)
    assert share(nn.Conv2d(3, 3, 3, 2, 1)) == 1
    assert share(nn.Conv2d(3, 3, (1, 3), 2, (0, 1))) == pytest.approx(1 / 2)
    assert share(nn.MaxPool2d(2), 17) == pytest.approx((16 / 17) ** 2)
    assert share(nn.AvgPool2d(1, 2), 16) == pytest.approx(1 / 4)
    assert torch.is_grad_enabled()
