"""The batch norm that the phases of a channel share."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses
from torch.testing import assert_close

from spdify.blocks import SPDBatchNorm2d, space_to_depth


def drawn(**kwargs: object) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3, **kwargs).double()  # type: ignore[arg-type]
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kwargs", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_it_is_the_norm_before_space_to_depth(training: bool, kwargs: dict[str, object]) -> None:
    norm = drawn(**kwargs).train(training)
    block = SPDBatchNorm2d.from_norm(copy.deepcopy(norm), 4)
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    assert_close(block(space_to_depth(x, (2, 2))), space_to_depth(norm(x), (2, 2)))
    if norm.running_mean is not None:
        assert_close(block.running_mean, norm.running_mean)
        assert_close(block.running_var, norm.running_var)
        assert block.num_batches_tracked == norm.num_batches_tracked


def test_a_norm_for_each_phase_is_another_one() -> None:
    block = SPDBatchNorm2d(3, 4).double().train()
    x = torch.randn(2, 12, 6, 6, dtype=torch.float64)
    assert not torch.allclose(block(x), F.batch_norm(x, None, None, training=True))


def test_tensors_are_taken_over_under_their_names() -> None:
    norm = drawn(eps=1e-3, momentum=0.03).eval()
    names = list(norm.state_dict())
    block = SPDBatchNorm2d.from_norm(norm, 4)
    assert block.weight is norm.weight
    assert block.running_var is norm.running_var
    assert (block.eps, block.momentum, block.training, list(block.state_dict())) == (1e-3, 0.03, False, names)
    assert "copies=4" in repr(block)


def test_optimizers_that_spare_norms_see_one() -> None:
    assert isinstance(SPDBatchNorm2d(3, 4), nn.BatchNorm2d)
