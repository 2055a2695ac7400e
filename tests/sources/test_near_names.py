from __future__ import annotations

from spdify.sources.near_names import near_names


def test_near_names_come_best_first_and_five_at_most() -> None:
    assert near_names("resnet5", ["resnet50", "resnet", "vgg16"]) == "Did you mean resnet50, resnet?"
    assert near_names("abc", [f"abc{i}" for i in range(9)]).count(",") == 4


def test_names_from_elsewhere_say_where() -> None:
    assert near_names("net1", ["net2"], elsewhere=["net12", "net2"], prefix="x:") == "Did you mean x:net12, net2?"


def test_far_names_are_not_told() -> None:
    assert near_names("resnet", ["vgg", "swin"]) == ""
