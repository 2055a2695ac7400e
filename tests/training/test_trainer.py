from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from spdify.engine import apply
from spdify.errors import TrainingError, UsageError
from spdify.records import Machine
from spdify.training import Share, Trainer, carried_masks, make_accelerator, make_batches, make_recipe, pack, unpack
from spdify.training.trainer import repeatable
from tests.training.networks import HOW, coloured, small

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan, Recipe

BASE = make_recipe("finetune", {"batch_size": 16, "epochs": 4, "lr": 0.01, "crop_padding": 1}, ["warmup_epochs=0"])


def trainer(
    network: nn.Module | None = None, recipe: Recipe = BASE, machine: Machine | None = None, **options: object
) -> Trainer:
    machine = machine or Machine(device="cpu")
    return Trainer(
        network or small(drop=0.1), make_batches(coloured(), recipe, HOW, classes=4), recipe,
        accelerator=make_accelerator(machine), machine=machine, seed=0, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def trained(recipe: Recipe = BASE, epochs: int = 2, **options: object) -> tuple[Trainer, list[float]]:
    made = trainer(recipe=recipe, **options)  # type: ignore[arg-type]
    return made, [made.run_epoch().train_loss for _ in range(epochs)]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns() -> None:
    made, losses = trained(BASE.model_copy(update={"smoothing": 0.0}), epochs=8)
    assert losses[-1] < 0.6 * losses[0]
    found = made.evaluate(coloured(seed=5), HOW).evaluation()
    assert found.top1 > 0.7
    assert not made.measured.training


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "momentum"}, {"ema_decay": 0.9}, {"mixup": 0.3, "reprob": 0.3}, {"sched": "constant"}]
)
def test_going_on_from_a_state_is_bit_for_bit_the_same(changes: dict[str, object]) -> None:
    recipe = BASE.model_copy(update=changes)
    whole, _ = trained(recipe, epochs=3)
    first, _ = trained(recipe, epochs=1)
    state = unpack(*pack(first.state()))
    torch.manual_seed(99)  # whatever was drawn since must not matter
    resumed = trainer(small(seed=7, drop=0.1), recipe)
    resumed.load_state(state)
    assert resumed.epoch == 1
    resumed.run_epoch()
    resumed.run_epoch()
    assert same(resumed.network, whole.network)
    assert same(resumed.measured, whole.measured)


def test_going_on_keeps_the_memory_format() -> None:
    # LAMB takes norms of its state, which are summed in the order of the memory.
    recipe, machine = BASE.model_copy(update={"optimizer": "lamb"}), Machine(device="cpu", channels_last=True)
    whole, _ = trained(recipe, epochs=3, machine=machine)
    first, _ = trained(recipe, epochs=2, machine=machine)
    resumed = trainer(small(seed=7, drop=0.1), recipe, machine)
    resumed.load_state(unpack(*pack(first.state())))
    resumed.run_epoch()
    assert same(resumed.network, whole.network)


def test_parts_give_the_gradients_of_the_whole() -> None:
    # Without batch norm and dropout, which see parts only.
    def plain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 4))

    results = []
    for parts in (1, 4):
        machine = Machine(device="cpu", parts=parts)
        recipe = BASE.model_copy(update={"optimizer": "momentum"})
        batches = make_batches(coloured(), recipe, HOW, classes=4, share=Share(parts=parts))
        made = Trainer(plain(), batches, recipe, accelerator=make_accelerator(machine), machine=machine, seed=0)
        made.run_epoch()
        results.append(made.network.state_dict())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*(r.values() for r in results), strict=True))


def test_averaged_weights_are_measured() -> None:
    made, _ = trained(BASE.model_copy(update={"ema_decay": 0.9}))
    assert not same(made.measured, made.network)
    plain, _ = trained()
    assert same(plain.measured, plain.network)


def test_only_new_weights_change_at_first(plan_for: Callable[..., Plan]) -> None:
    original = small()
    plan = plan_for(original, 1, 3, 16, 16)
    masks = carried_masks(original.state_dict(), [plan])
    for optimizer in ("adamw", "momentum", "lamb"):
        converted = apply(original, plan)
        before = {name: p.detach().clone() for name, p in converted.named_parameters()}
        recipe = BASE.model_copy(update={"only_new_epochs": 1, "optimizer": optimizer})
        made = trainer(converted, recipe, masks=masks)
        made.run_epoch()
        moved = {name: (p != before[name]) for name, p in converted.named_parameters()}
        for name, changed in moved.items():
            mask = masks.get(name, torch.ones_like(changed))
            assert not changed[mask].any(), (optimizer, name)
        assert moved["conv2.weight"].any()
        assert {g["weight_decay"] for g in made._optimizer.param_groups} == {0.0, BASE.weight_decay}
        made.run_epoch()
        assert (converted.get_parameter("conv1.weight") != before["conv1.weight"]).any()


def test_new_weights_learn_faster() -> None:
    recipe = BASE.model_copy(
        update={"new_lr_factor": 10.0, "optimizer": "momentum", "momentum": 0.0, "weight_decay": 0.0}
    )
    moves = []
    for masks in ({}, {"fc.weight": torch.zeros(4, 16, dtype=torch.bool)}):
        network = small()
        made = trainer(network, recipe, masks=masks)
        start = network.fc.weight.detach().clone()
        made._step(0, next(iter(made._batches.epoch(1))), None)
        moves.append((network.fc.weight - start).norm().item())
    assert moves[1] == pytest.approx(10 * moves[0], rel=1e-3)


def test_a_loss_that_is_no_number_stops() -> None:
    made = trainer(recipe=BASE.model_copy(update={"lr": 1e30, "optimizer": "momentum", "clip_grad": 0.0}))
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch 1") as caught:
        made.run_epoch()
    assert "Lower --lr" in caught.value.hint
    assert made.epoch == 0


def test_weights_that_the_last_step_has_spoilt_are_no_result() -> None:
    network = small()

    def spoil(step: int, steps: int, _: float) -> None:
        if step == steps:  # no loss will tell of it
            nn.init.constant_(network.bn1.bias, torch.nan)

    made = trainer(network, progress=spoil)
    with pytest.raises(TrainingError, match="weights are no numbers any more after epoch 1"):
        made.run_epoch()
    assert made.epoch == 0


@pytest.mark.parametrize(
    "fault", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_says_what_to_lower(fault: Exception) -> None:
    network = small()
    made = trainer(network)

    def fail(*_: object) -> None:
        raise fault

    network.conv2.register_forward_hook(fail)
    with pytest.raises(TrainingError, match="memory") as caught:
        made.run_epoch()
    assert "--batch-size" in caught.value.hint


def test_other_faults_stay_what_they_are() -> None:
    network = small()
    made = trainer(network)
    network.fc.in_features = 3
    network.fc.weight = nn.Parameter(torch.zeros(4, 3))
    with pytest.raises(RuntimeError, match="shapes"):
        made.run_epoch()


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.other = small(), nn.Linear(3 * 16 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        first: torch.Tensor = self.net(x)
        return (first, self.other(x.flatten(1))) if self.training else first


def test_auxiliary_outputs_are_trained_too() -> None:
    network = TwoOutputs()
    before = network.other.weight.detach().clone()
    made = trainer(network)
    made.run_epoch()
    assert not torch.equal(before, network.other.weight)
    assert made.evaluate(coloured(), HOW).evaluation().images == 64


def test_bf16_and_channels_last_run() -> None:
    made, losses = trained(machine=Machine(device="cpu", amp="bf16", channels_last=True))
    assert all(map(math.isfinite, losses))
    assert next(made.network.parameters()).dtype == torch.float32
    assert made.network.get_parameter("conv1.weight").is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_no_gpu() -> None:
    with pytest.raises(UsageError, match="PyTorch finds no GPU"):
        make_accelerator(Machine(device="cuda"))
    with pytest.raises(UsageError, match="synchronise batch norms"):
        make_accelerator(Machine(sync_batchnorm=True))
    with pytest.raises(UsageError, match="--amp fp16"):
        make_accelerator(Machine(device="cpu", amp="fp16"))


@pytest.mark.parametrize(
    ("device", "wanted", "found"), [("cpu", True, False), ("cuda", False, False), ("cuda", True, True)]
)
def test_a_gpu_gives_the_same_bits_each_time_if_so_asked(
    device: str, wanted: bool, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with repeatable(Machine(deterministic=wanted), torch.device(device)):
        assert torch.are_deterministic_algorithms_enabled() is found
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is found
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
