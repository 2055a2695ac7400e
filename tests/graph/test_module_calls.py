"""What a forward pass calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spdify.errors import TraceError
from spdify.graph.module_calls import record_calls


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor, *, twice: bool = False) -> Tensor:
        return self.act(self.act(x)) if twice else self.act(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused = Inner(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x), twice=True)


def test_calls_are_nested_as_they_are_made() -> None:
    model = Outer()
    call = record_calls(model, ((torch.zeros(2),), {}), path="net")
    assert (call.path, call.module) == ("net", model)
    assert [child.path for child in call.children] == ["net.inner", "net.inner"]
    assert [child.inputs[1] for child in call.children] == [{}, {"twice": True}]
    assert [len(child.children) for child in call.children] == [1, 2]
    assert call.children[1].children[1].path == "net.inner.act"


def test_no_hook_stays() -> None:
    model = Outer()
    record_calls(model, ((torch.zeros(2),), {}))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_module_that_does_not_run_says_why_and_keeps_no_hook() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(TraceError, match=r"cannot run Sequential: .*shapes"):
        record_calls(model, ((torch.zeros(1, 2),), {}))
    assert not model[0]._forward_pre_hooks
