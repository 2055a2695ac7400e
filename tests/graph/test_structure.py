"""Copies without weights, and fingerprints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spdify.errors import TraceError
from spdify.graph import fake_copy, fingerprint, survey
from spdify.graph.structure import detached_copy, lazy_copy
from tests.versions import needs_const_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Inputs


class Caching(nn.Module):
    """Keeps what it computes, as LeViT's attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 2)
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.cache["seen"] = x
        return x


def network(stride: int = 2, **window: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride), nn.BatchNorm2d(4), nn.AvgPool2d(2, **window))  # type: ignore[arg-type]


def test_a_fake_copy_holds_no_weights_and_runs() -> None:
    model = network()
    copied, mode = fake_copy(model)
    with mode:
        assert copied(torch.empty(1, 3, 9, 9)).shape == (1, 4, 2, 2)
    assert all(
        type(p).__name__ != "Tensor" and p is not q
        for p, q in zip(copied.parameters(), model.parameters(), strict=True)
    )


@pytest.mark.parametrize("copy", [lambda model: fake_copy(model)[0], detached_copy])
def test_copies_survive_a_forward_pass_with_gradients(copy: Callable[[nn.Module], nn.Module]) -> None:
    model = Caching()
    model(torch.zeros(1, 3, 9, 9)).sum().backward()
    copied = copy(model)
    assert copied.cache["seen"].grad_fn is None  # type: ignore[index, union-attr]
    assert model.cache["seen"].grad_fn is not None


def test_a_detached_copy_keeps_values_sharing_and_freezing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    copied = detached_copy(model)
    assert copied[0].weight is copied[1].weight  # type: ignore[index]
    assert not copied[0].bias.requires_grad  # type: ignore[index]
    assert torch.equal(copied[0].weight, model[0].weight)  # type: ignore[index]
    assert copied[0].weight.data_ptr() != model[0].weight.data_ptr()  # type: ignore[index]


def test_what_cannot_be_copied_is_said() -> None:
    model = network()
    model.socket = iter(i for i in range(3))  # type: ignore[assignment]
    with pytest.raises(TraceError, match="cannot copy Sequential"):
        fake_copy(model)


def test_the_fingerprint_is_of_structure_alone() -> None:
    torch.manual_seed(0)
    first = network()
    torch.manual_seed(1)
    assert fingerprint(first) == fingerprint(network().half().eval().requires_grad_(False))


@pytest.mark.parametrize(
    "other",
    [
        network(stride=3),
        network(ceil_mode=True),
        network(count_include_pad=False),
        network(divisor_override=3),
        nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.BatchNorm2d(5), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding_mode="reflect"), nn.BatchNorm2d(4), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.ReLU()),
    ],
)
def test_the_fingerprint_shows_other_structures(other: nn.Module) -> None:
    assert fingerprint(other) != fingerprint(network())


def test_a_model_on_the_meta_device_is_surveyed(inputs_of: Callable[..., Inputs]) -> None:
    with torch.device("meta"):
        model = network()
    assert [site.path for site in survey(model, inputs_of(3, 16, 16)).sites] == ["0", "2"]


@needs_const_addresses
def test_a_lazy_copy_takes_memory_only_when_one_of_both_is_written_to() -> None:
    model = network()
    first, norm = model[0], model[1]
    copied = lazy_copy(model)
    assert all(a.const_data_ptr() == b.const_data_ptr() for a, b in zip(both(model), both(copied), strict=True))
    before = first.weight.detach().clone()
    with torch.no_grad():
        copied[0].weight.add_(1)
        norm.running_mean.fill_(7)
    assert torch.equal(first.weight, before)
    assert torch.equal(copied[0].weight, before + 1)
    assert torch.equal(copied[1].running_mean, torch.zeros(4))
    assert first.bias.const_data_ptr() == copied[0].bias.const_data_ptr()


def test_a_lazy_copy_of_memory_that_is_not_pytorch_s_is_apart() -> None:
    held = np.ones((2, 2), dtype=np.float32)
    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(torch.from_numpy(held))
    copied = lazy_copy(model)
    held[:] = 3
    assert model.weight.sum() == 12
    assert copied.weight.sum() == 4


def test_a_lazy_copy_leaves_the_original_where_it_was() -> None:
    model = nn.Linear(2, 2)
    seen = model.weight.detach().numpy()
    copied = lazy_copy(model)
    del copied
    with torch.no_grad():
        model.weight.fill_(5)
    assert (seen == 5).all()


@pytest.mark.parametrize("copy", [detached_copy, lazy_copy])
def test_copies_keep_sharing_and_freezing(copy: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    model["a"].bias.requires_grad_(False)
    copied = copy(model)
    assert copied["a"].weight is copied["b"].weight
    assert copied["a"].weight is not model["a"].weight
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in model.parameters()]


def both(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
