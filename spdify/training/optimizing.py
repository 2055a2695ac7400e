"""Optimizer and learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.scheduler_factory import create_scheduler_v2

from spdify.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from timm.scheduler.scheduler import Scheduler
    from torch import nn
    from torch.optim import Optimizer

    from spdify.records import Recipe

WARMUP_START = 0.01  # of the learning rate


def parameter_groups(network: nn.Module, recipe: Recipe, new: Collection[str]) -> list[dict[str, Any]]:
    """Sort the parameters by learning rate and weight decay; frozen ones are in no group.

    Args:
        network: The network.
        recipe: Rates and decay.
        new: Names of tensors with entries that were not carried over.

    Returns:
        At most four groups, carried ones first.
    """
    never = set(getattr(network, "no_weight_decay", set)())
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = recipe.decay_all or (parameter.ndim > 1 and name not in never)
        groups.setdefault((name in new, decays), []).append(parameter)
    return [
        {
            "params": groups[key],
            "lr": recipe.lr * (recipe.new_lr_factor if key[0] else 1.0),
            "weight_decay": recipe.weight_decay if key[1] else 0.0,
        }
        for key in sorted(groups)
    ]


def make_optimizer(network: nn.Module, recipe: Recipe, new: Collection[str]) -> Optimizer:
    """Make the recipe's optimizer.

    Raises:
        UsageError: timm has none of that name, or it does not take these settings.
    """
    groups = parameter_groups(network, recipe, new)
    if not groups:
        raise UsageError("cannot train: every parameter of the network is frozen", hint="Set requires_grad first.")
    try:
        made = create_optimizer_v2(
            groups, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise UsageError(
            f"cannot make the optimizer {recipe.optimizer!r}: {str(error) or type(error).__name__}",
            hint="Take a name of timm.optim.list_optimizers(), for example sgd, momentum (without Nesterov), adamw.",
        ) from error
    if getattr(made, "is_second_order", False):
        raise UsageError(
            f"cannot train with {recipe.optimizer}: it needs second derivatives, which this loop does not make",
            hint="Take another, for example adamw or momentum.",
        )
    return made


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> Scheduler | None:
    """Make the learning rate's course over the steps of the whole run; None where it does not change.

    Args:
        optimizer: Its groups' rates are the highest.
        recipe: Kind of schedule.
        steps: Steps of one epoch.
    """
    warmup = min(recipe.warmup_epochs, recipe.epochs / 2)  # a run of one epoch must not end in its warm-up
    if recipe.sched == "constant" and not warmup:
        return None
    total = recipe.epochs * steps
    # What timm counts in epochs is counted in steps here, so that a rate may change within an epoch. It lowers the rate
    # one step before each milestone.
    milestones = [round(share * total) + 1 for share in recipe.milestones] if recipe.sched == "step" else [2 * total]
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if recipe.sched == "cosine" else "multistep",
        num_epochs=total,
        decay_milestones=milestones,
        decay_rate=recipe.decay_rate,
        min_lr=0.0,
        warmup_epochs=round(warmup * steps),
        warmup_lr=recipe.lr * WARMUP_START,
    )
    return cast("Scheduler | None", scheduler)
