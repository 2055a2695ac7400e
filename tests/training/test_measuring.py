from __future__ import annotations

import math

import pytest
import torch

from spdify.errors import DataError
from spdify.training.measuring import Scores, calibration_error, join, score, scores_of


def scores(logits: torch.Tensor, labels: torch.Tensor) -> Scores:
    return score(logits, labels, torch.arange(len(labels)))


def test_figures_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25]]))
    labels = torch.tensor([0, 1, 1, 2])
    found = scores(logits, labels).evaluation()
    assert found.images == 4
    assert found.top1 == 0.5
    assert found.top5 == 1.0
    assert found.loss == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.5) + math.log(0.25)) / 4, rel=1e-6)
    # Four bins with one image each: right with 0.7 and 0.5, wrong with 0.6 and 0.4.
    assert found.calibration_error == pytest.approx((0.3 + 0.6 + 0.5 + 0.4) / 4, rel=1e-6)
    assert scores(logits, labels).confusion(3).tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]


def test_top5_of_many_classes() -> None:
    logits = torch.arange(10.0).repeat(3, 1)
    found = scores(logits, torch.tensor([9, 5, 4])).evaluation()
    assert found.top1 == pytest.approx(1 / 3)
    assert found.top5 == pytest.approx(2 / 3)


def test_ties_go_to_the_first_class_and_nan_to_none() -> None:
    tied = scores(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    assert tied.correct.tolist() == [True, False, False, True]
    assert torch.equal(tied.correct, tied.predicted == tied.labels)
    broken = scores(torch.full((2, 3), torch.nan), torch.tensor([0, 1]))
    assert not broken.correct.any()
    assert broken.evaluation().top5 == 0


def test_calibration_is_perfect_and_worst() -> None:
    sure = torch.ones(10)
    assert calibration_error(sure, torch.ones(10, dtype=torch.bool)) == 0
    assert calibration_error(sure, torch.zeros(10, dtype=torch.bool)) == 1
    half = torch.full((10,), 0.5)
    assert calibration_error(half, torch.arange(10) % 2 == 0) == pytest.approx(0)


def test_parts_are_put_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 4, generator=generator), torch.arange(20) % 4
    indices = torch.randperm(20, generator=generator)
    parts = [score(logits[chunk], labels[chunk], chunk) for chunk in torch.split(indices, 6)]
    whole = scores(logits, labels)
    joined = join(parts)
    assert all(torch.equal(vars(joined)[name], vars(whole)[name]) for name in vars(whole))
    with pytest.raises(DataError, match="no images"):
        join([])


def test_gradients_are_off() -> None:
    seen = []

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return inputs

    scores_of(predict, [(torch.eye(3), torch.arange(3), torch.arange(3))])
    assert seen == [False]
