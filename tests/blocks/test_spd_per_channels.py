"""One block per channel count."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from spdify.blocks import SPDAvgPool, SPDMaxPool, SPDPerChannels


def test_each_input_goes_to_the_block_that_fits() -> None:
    block = SPDPerChannels({3: SPDMaxPool(3, 3, 2, 1), 5: SPDMaxPool(5, 3, 2, 1)})
    pool = nn.MaxPool2d(3, 2, 1)
    for channels in (3, 5):
        x = torch.randn(2, channels, 9, 10)
        torch.testing.assert_close(block(x), pool(x))
        torch.testing.assert_close(block(x[0]), pool(x[0]))


@pytest.mark.parametrize("channels", [4, 1])
def test_other_channels_are_a_fault(channels: int) -> None:
    block = SPDPerChannels({3: SPDAvgPool(3, 2), 5: SPDAvgPool(5, 2)})
    with pytest.raises(ValueError, match=rf"3, 5 channels and none for the {channels}"):
        block(torch.randn(2, channels, 8, 8))


def test_channels_lie_before_the_spatial_axes() -> None:
    block = SPDPerChannels({3: SPDAvgPool(3, (2,)), 4: SPDAvgPool(4, (2,))}, dims=1)
    assert block(torch.randn(2, 3, 8)).shape == (2, 3, 4)
    assert block(torch.randn(4, 8)).shape == (4, 4)


def test_no_blocks_are_a_fault() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SPDPerChannels({})


def test_both_learn_and_are_found_after_a_trace() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.conv = SPDPerChannels({3: SPDAvgPool(3, 2), 5: SPDAvgPool(5, 2)}), nn.Conv2d(3, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(self.conv(self.pool(x)))  # type: ignore[no-any-return]

    network = Network()
    traced = fx.symbolic_trace(network)
    assert [n.name for n in traced.graph.nodes if n.op == "call_function"] == ["run_for_channels", "run_for_channels_1"]
    assert {name for name, _ in traced.named_parameters()} == {name for name, _ in network.named_parameters()}
    traced(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.pool.parameters())
