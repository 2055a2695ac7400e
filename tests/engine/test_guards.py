"""Folding methods of a converted network say that it is too late."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

import spdify
from spdify.engine.guards import guard_folding
from spdify.errors import RefusedError


class Folding(nn.Module):
    """Folds its own branches when asked; `fuse` is something else: it takes two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, 2)

    def fuse(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def reparameterize(self) -> None:
        self.one = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.one(x), self.two(x))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.rest = Folding(), Folding()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


def test_methods_around_a_block_raise_and_say_what_to_do() -> None:
    model = nn.Sequential(Outer())
    guard_folding(model, ["0.down.one"])
    with pytest.raises(RefusedError, match=r"cannot call reparameterize\(\) on 0\.down: ") as caught:
        model[0].down.reparameterize()  # type: ignore[union-attr, operator]
    assert "--reparameterize" in caught.value.hint
    assert caught.value.exit_code == 1


def test_other_methods_and_other_modules_stay() -> None:
    model = nn.Sequential(Outer())
    guard_folding(model, ["0.down.one"])
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 4, 4, 4)  # calls fuse(a, b)
    model[0].rest.reparameterize()  # type: ignore[union-attr, operator]
    assert "reparameterize" not in vars(model[0].rest)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_raise_too(again: object) -> None:
    model = Outer()
    guard_folding(model, ["down.one"])
    with pytest.raises(RefusedError):
        again(model).down.reparameterize()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0", "fastvit_t8", "repvit_m0_9"])
def test_timm_cannot_fold_a_converted_network(name: str) -> None:
    model = timm.create_model(name).eval()
    opened = spdify.inspect(model, input_size=(3, 64, 64))
    guard_folding(model, [site.path for site in opened.sites])
    with pytest.raises(RefusedError, match="convolutions in it were replaced"):
        reparameterize_model(model)


def test_apply_guards() -> None:
    converted = spdify.convert(Outer(), input_size=(3, 16, 16), proof="site").model
    with pytest.raises(RefusedError):
        converted.down.reparameterize()  # type: ignore[union-attr, operator]
