"""The faster form of each block, by a clock that is told what to say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import spdify
from spdify.benchmarking import tune
from spdify.blocks import SPDConv, SPDMaxPool


def network() -> nn.Sequential:
    return nn.Sequential(SPDConv(3, 4, 2), nn.BatchNorm2d(4), SPDMaxPool(4, 3, 2, 1), nn.Dropout(), SPDConv(4, 4, 1))


def test_each_block_gets_its_faster_form_and_nothing_else_changes() -> None:
    net = network().train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    asked: list[dict[str, Any]] = []

    def clock(calls: dict[str, Any], **options: Any) -> dict[str, tuple[float, ...]]:  # noqa: ANN401 - rounds and seconds
        results = [call() for call in calls.values()]
        for one, other in zip(*results, strict=True):  # gradients: both forms compute the same
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        asked.append(options)
        faster = len(asked) % 2
        return {form: (1.0, 1.0, 2.0 - (i == faster)) if i == faster else (3.0,) for i, form in enumerate(calls)}

    x = torch.randn(2, 3, 33, 30)
    with torch.no_grad():
        before = net.eval()(x)
    found = tune(net.train(), x, clock=clock)
    assert found == {"0": "strided", "2": "space_to_depth", "4": "strided"}
    assert [getattr(net[i], "form", None) for i in range(5)] == ["strided", None, "space_to_depth", None, "strided"]
    assert net.training
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x), before, rtol=1e-4, atol=1e-5)


def test_forward_alone() -> None:
    net = network()

    def clock(calls: dict[str, Any], **_: object) -> dict[str, tuple[float, ...]]:
        assert all(not call().requires_grad for call in calls.values())
        return dict.fromkeys(calls, (1.0,))

    assert set(tune(net, torch.randn(1, 3, 32, 32), train=False, clock=clock)) == {"0", "2", "4"}


def test_for_real() -> None:
    found = spdify.tune(nn.Sequential(SPDConv(2, 2, 1)), torch.randn(1, 2, 8, 8))
    assert found["0"] in {"space_to_depth", "strided"}
