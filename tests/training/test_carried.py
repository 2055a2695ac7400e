from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.engine import plan_classifier
from spdify.records import Inputs, InputSpec
from spdify.training import carried_masks
from tests.training.networks import small

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan


def test_taps_are_carried_and_the_rest_is_new(plan_for: Callable[..., Plan]) -> None:
    network = small()
    plan = plan_for(network, 1, 3, 16, 16)
    masks = carried_masks(network.state_dict(), [plan])
    assert "conv1.weight" not in masks
    assert "fc.weight" not in masks
    assert not any("running" in name for name in masks)
    taps = masks["conv2.weight"]  # 3x3 at stride 2: 9 of 4 phases of 2x2
    assert taps.sum().item() == 16 * 8 * 9
    assert taps.numel() == 16 * 8 * 16
    pool = [name for name in masks if name.startswith("pool.")]
    assert pool
    assert not any(masks[name].any() for name in pool)


def test_a_new_classifier_is_new() -> None:
    network = small()
    head = plan_classifier(network, Inputs(args=(InputSpec(shape=(1, 3, 16, 16)),)), 7)
    assert head is not None
    masks = carried_masks(network.state_dict(), [head])
    assert {name: bool(mask.any()) for name, mask in masks.items()} == {"fc.weight": False, "fc.bias": False}
    assert masks["fc.weight"].shape == (7, 16)
    assert carried_masks(network.state_dict(), []) == {}
