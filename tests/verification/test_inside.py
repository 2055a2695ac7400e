"""Models whose output shows little: what is compared instead, and that it can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from spdify.verification import failed, inside, model_proof
from tests.verification.breaking import with_a_wrong_weight

if TYPE_CHECKING:
    from collections.abc import Callable


class Finder(nn.Module):
    """A detector in small: it takes no batch to train on, and gives what scores above a threshold, largest first."""

    threshold = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        if self.training:
            msg = "targets should not be none"
            raise ValueError(msg)
        scores = self.head(self.body(x)).flatten(1)
        return [self.found(row) for row in scores]

    def found(self, row: Tensor) -> dict[str, Tensor]:
        places = (row > self.threshold).nonzero().flatten()
        scores, order = row[places].topk(min(3, len(places)))
        return {"scores": scores, "places": places[order]}


class Blind(Finder):
    """Finds nothing, as a detector with random weights."""

    threshold = 1e6


class Deciding(nn.Module):
    """Gives whole numbers only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).relu()).argmax(1)


WHOLE = ("whole model, eval", "live sites", "gradients")


@pytest.mark.parametrize("make", [Finder, Blind, Deciding])
def test_they_are_proved_and_say_what_was_compared(make: Callable[[], nn.Module], convert: Callable) -> None:
    torch.manual_seed(0)
    checks = convert(make()).prove()
    assert {name: checks[name].outcome for name in WHOLE} == dict.fromkeys(WHOLE, "passed")
    assert not failed(tuple(checks.values()))
    if make is not Finder:
        assert "compared are the outputs of" in checks["whole model, eval"].detail


def test_eval_only_is_said(convert: Callable) -> None:
    checks = convert(Blind()).prove()
    assert checks["whole model, train"].outcome == "not run"
    assert "targets should not be none" in checks["whole model, train"].detail
    assert checks["statistics, train"].outcome == "not run"
    assert checks["two eyes, before"].detail.endswith("in eval mode only")
    assert "compared are the outputs of body, head" in checks["whole model, eval"].detail


@pytest.mark.parametrize("make", [Finder, Blind, Deciding])
def test_a_wrong_weight_is_caught(
    make: Callable[[], nn.Module], convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    conversion = convert(make())
    monkeypatch.setattr(model_proof, "apply_lazily", with_a_wrong_weight(0))
    assert conversion.prove()["whole model, eval"].outcome == "failed"


@pytest.mark.parametrize("make", [Blind, Deciding])
def test_own_weights_are_caught_as_well(make: Callable[[], nn.Module], convert: Callable) -> None:
    conversion = convert(make())
    with torch.no_grad():
        conversion.converted.get_submodule(conversion.plan.applied[0].site.path).weight[0] += 0.5
    assert "own weights, float32" in {c.name for c in failed(tuple(conversion.prove().values()))}


class Choosing(nn.Module):
    """Chooses between two numbers that are equal but for what `nudge` adds, then computes with the choice."""

    def __init__(self, nudge: float, after: float = 1.0) -> None:
        super().__init__()
        self.nudge, self.after = nudge, after
        self.first, self.second = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        best = (x + torch.tensor([0.0, self.nudge], dtype=x.dtype)).argmax(1)
        return self.second(x * self.after) + best[:, None]


def compare(first: nn.Module, second: nn.Module) -> inside.Agreement:
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    run = lambda model: model(x)  # noqa: E731
    watched, chooses = inside.find_watched(first, run, ())
    assert (watched, chooses) == (("first", "second"), True)
    return inside.compare_inside((first, second), run, watched, (), covering=["first"])


def test_equal_models_agree_to_the_end() -> None:
    found = compare(Choosing(0.0), Choosing(0.0))
    assert (found.error, found.complete, found.parted) == (0.0, True, "")


def test_a_choice_that_rounding_tips_ends_the_comparison() -> None:
    found = compare(Choosing(0.0), Choosing(1e-15, after=5.0))
    assert found.error < 1e-14
    assert (found.watched, found.complete) == (("first",), True)
    assert "argmax in the model itself" in found.parted
    assert "not compared" in found.detail


def test_a_choice_made_from_other_numbers_is_an_error() -> None:
    assert compare(Choosing(0.0), Choosing(0.1)).error > 0.01


def test_what_comes_after_an_equal_choice_is_compared() -> None:
    assert compare(Choosing(0.0), Choosing(0.0, after=1.1)).error > 0.01


def test_a_site_behind_the_tipped_choice_makes_it_incomplete() -> None:
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    models = (Choosing(0.0), Choosing(1e-15))
    found = inside.compare_inside(models, lambda m: m(x), ("first", "second"), (), covering=["first", "second"])
    assert not found.complete


def test_other_modules_called_are_an_error() -> None:
    class Other(Choosing):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    assert compare(Choosing(0.0), Other(0.0)).error == float("inf")


def test_no_hook_stays() -> None:
    model = Choosing(0.0)
    compare(model, Choosing(0.0))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
