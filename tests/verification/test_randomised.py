"""Weights under which every part of a network shows."""

from __future__ import annotations

import timm
import torch
import torchvision
from torch import nn

from spdify.verification.randomised import randomise, settle_statistics, whole_batch_statistics


def test_zero_gains_and_zero_layers_are_drawn_and_kernels_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
    nn.init.zeros_(model[1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    random_state = torch.get_rng_state()
    randomise(model, seed=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    unchanged = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert unchanged == {"0.weight", "3.weight"}
    assert model[1].weight.min() >= 0.5  # type: ignore[operator, union-attr]
    assert model[2].weight.unique().numel() == 16  # type: ignore[operator, union-attr]


def test_the_seed_decides() -> None:
    first, second, third = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    randomise(first, seed=1)
    randomise(second, seed=1)
    randomise(third, seed=2)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, third.weight)


def test_layer_scales_and_skip_gains_of_timm_are_drawn() -> None:
    model = timm.create_model("nf_resnet26", num_classes=2)
    randomise(model, seed=0)
    gains = [p for name, p in model.named_parameters() if name.endswith(("gain", "skipinit_gain"))]
    assert gains
    assert all(gain.abs().min() > 0.1 for gain in gains)


def test_statistics_become_those_of_one_batch_and_momenta_come_back() -> None:
    norm, frozen = nn.BatchNorm2d(3, momentum=None), torchvision.ops.FrozenBatchNorm2d(3)
    x = 3 + 2 * torch.randn(4, 3, 8, 8)
    with whole_batch_statistics(nn.Sequential(norm, frozen)):
        norm.train()(x)
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)))  # type: ignore[arg-type]
    assert norm.momentum is None
    assert not hasattr(frozen, "momentum")


def test_settled_statistics_are_near_those_of_the_input_and_not_on_them() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    ).double()
    x = torch.randn(2, 3, 16, 16).double()
    settle_statistics(model, lambda: model(x), seed=0)
    with torch.no_grad():
        y = model(x)
    assert 0.5 < y.std() < 2
    assert (y.mean((0, 2, 3)).abs() > 1e-3).all()
    assert not any(m._forward_pre_hooks for m in model.modules())
