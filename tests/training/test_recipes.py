from __future__ import annotations

import pytest

from spdify.errors import UsageError
from spdify.training import RECIPES, make_recipe


def test_the_paper_s_recipes() -> None:
    cifar = RECIPES["paper-cifar10"]
    assert (cifar.lr, cifar.momentum, cifar.batch_size, cifar.weight_decay, cifar.epochs) == (0.1, 0.9, 128, 1e-4, 200)
    tiny = RECIPES["paper-tinyimagenet"]
    assert (tiny.lr, tiny.momentum, tiny.batch_size, tiny.weight_decay) == (0.01793, 0.9447, 256, 0.002113)
    assert tiny.epochs == 200
    assert {cifar.optimizer, tiny.optimizer} == {"momentum"}  # timm's sgd is Nesterov's


def test_changes() -> None:
    recipe = make_recipe("finetune", {"epochs": 3, "lr": None}, ["mixup=0.2", "aa=rand-m9", "milestones=(0.3, 0.6)"])
    assert (recipe.epochs, recipe.mixup, recipe.aa, recipe.milestones) == (3, 0.2, "rand-m9", (0.3, 0.6))
    assert recipe.lr == RECIPES["finetune"].lr
    assert recipe.name == "finetune"


@pytest.mark.parametrize(
    ("name", "items", "words"),
    [
        ("fine", (), "cannot find the recipe 'fine'"),
        ("finetune", ("lr",), "expected field=value"),
        ("finetune", ("rate=1",), "there is no such field"),
        ("finetune", ("name=x",), "there is no such field"),
        ("finetune", ("lr=-1",), "greater than 0"),
        ("finetune", ("lr=1e999",), "finite number"),
        ("finetune", ("epochs=0",), "greater than or equal to 1"),
        ("finetune", ("sched=linear",), "sched of the recipe to 'linear'"),
        ("finetune", ("epochs=many",), "epochs of the recipe to 'many'"),
    ],
)
def test_faults(name: str, items: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_recipe(name, {}, items)


def test_near_names_are_offered() -> None:
    with pytest.raises(UsageError) as caught:
        make_recipe("finetune", {}, ["mixupp=1"])
    assert caught.value.hint == "Did you mean mixup?"
