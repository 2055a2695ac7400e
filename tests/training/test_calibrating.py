from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from spdify.blocks import SPDConv
from spdify.training import calibrate_norms, fit_pool, output_error, pool_error
from tests.training.networks import small


def pair(pool: nn.Module, channels: int = 8) -> tuple[nn.Module, nn.Module]:
    """Give a network with an SPDConv in the place of its pool, and the network itself."""
    reference = small().eval()
    reference.pool = pool  # type: ignore[assignment]
    network = copy.deepcopy(reference)
    block = SPDConv(channels, channels, 2, 2, [(2, 1), (2, 1)], bias=False)
    network.pool = block  # type: ignore[assignment]
    return network, reference


def images(count: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 16, 16, generator=generator) for _ in range(count)]


def test_an_average_pool_is_found_again() -> None:
    network, reference = pair(nn.AvgPool2d(3, 2, 1))
    assert pool_error(network, reference, "pool", images) > 0.5
    fit_pool(network, reference, "pool", images)
    assert pool_error(network, reference, "pool", lambda: images(seed=1)) < 1e-4
    assert output_error(network, reference, lambda: images(seed=1)) < 1e-4


def test_a_max_pool_comes_nearer_than_a_mean() -> None:
    network, reference = pair(nn.MaxPool2d(3, 2, 1))
    mean, averaging = pair(nn.AvgPool2d(3, 2, 1))
    fit_pool(mean, averaging, "pool", images)
    before = pool_error(mean, reference, "pool", lambda: images(seed=1))
    fit_pool(network, reference, "pool", images)
    assert pool_error(network, reference, "pool", lambda: images(seed=1)) < 0.8 * before


def test_the_fit_is_the_least_squares_one() -> None:
    network, reference = pair(nn.MaxPool2d(3, 2, 1))
    fit_pool(network, reference, "pool", images)
    best = pool_error(network, reference, "pool", images)
    weight = network.get_submodule("pool").get_parameter("weight")
    own = weight != 0
    for seed in range(3):
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * own
        with torch.no_grad():
            weight.add_(noise, alpha=1e-2)
        assert pool_error(network, reference, "pool", images) > best
        with torch.no_grad():
            weight.sub_(noise, alpha=1e-2)


def test_channels_stay_apart() -> None:
    network, reference = pair(nn.MaxPool2d(3, 2, 1))
    fit_pool(network, reference, "pool", images)
    weight = network.get_submodule("pool").get_parameter("weight").unflatten(1, (8, 4))  # type: ignore[no-untyped-call]
    for out in range(8):
        for into in range(8):
            assert weight[out, into].any() == (out == into)


def test_norms_take_the_mean_over_all_batches() -> None:
    network = small(drop=0.5).eval()
    with torch.no_grad():
        network.bn1.running_mean.fill_(5.0)  # type: ignore[union-attr]
    assert calibrate_norms(network, images) == 1
    seen = [network.conv1(batch) for batch in images()]
    expected = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    assert network.bn1.running_mean == pytest.approx(expected.detach(), abs=1e-6)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    assert network.bn1.running_var == pytest.approx(variance.detach(), rel=1e-5)
    assert network.bn1.momentum == 0.1
    assert not any(module.training for module in network.modules())
    assert calibrate_norms(nn.Sequential(nn.Linear(2, 2)), images) == 0
