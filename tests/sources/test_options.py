from __future__ import annotations

from pathlib import Path

import pytest

from spdify.errors import UsageError
from spdify.sources import BuildOptions, parse_input_size, parse_model_kwargs


def test_values_are_literals_and_anything_else_is_text() -> None:
    items = ["a=1", "b=0.5", "c=True", "d=None", "e=silu", "f='1'", "g=(1, 2)", "h=[3]", "i=x=y", "j="]

    assert parse_model_kwargs(items) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": None,
        "e": "silu",
        "f": "1",
        "g": [1, 2],
        "h": [3],
        "i": "x=y",
        "j": "",
    }


@pytest.mark.parametrize("item", ["a", "=1", "1a=2", "a={'b': 1}", "a=[[1]]", "a=b'x'", "a=1e999", "a-b=1"])
def test_items_of_another_form_are_refused(item: str) -> None:
    with pytest.raises(UsageError, match="Cannot read --model-kwargs"):
        parse_model_kwargs([item])


def test_a_key_may_come_once() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_model_kwargs(["a=1", "a=1"])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("3,224,224", (3, 224, 224)),
        (" 3, 16,112,112", (3, 16, 112, 112)),
        ("1,500", (1, 500)),
        ("1,1,65536", (1, 1, 65536)),
    ],
)
def test_input_sizes_are_read(text: str, size: tuple[int, ...]) -> None:
    assert parse_input_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "224", "3x224x224", "3,224,", "3,0,224", "3,-1,224", "3,2.5,2", "1,2,3,4,5", "3,65537,3"]
)
def test_impossible_input_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="input size"):
        parse_input_size(text)


@pytest.mark.parametrize(
    "wishes",
    [
        {"pretrained": True, "checkpoint": Path("x")},
        {"in_chans": 1, "input_size": (3, 8, 8)},
        {"num_classes": -1},
        {"in_chans": 0},
        {"input_size": (3, 0, 8)},
    ],
)
def test_options_that_cannot_hold_are_refused(wishes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        BuildOptions(**wishes)


def test_constructor_arguments_hold_only_what_was_given() -> None:
    assert BuildOptions().constructor_kwargs() == {}
    assert BuildOptions(num_classes=7, model_kwargs={"drop_rate": 0.1}).constructor_kwargs() == {
        "num_classes": 7,
        "drop_rate": 0.1,
    }


def test_an_argument_given_twice_must_agree() -> None:
    agreeing = BuildOptions(num_classes=7, model_kwargs={"num_classes": 7})
    assert agreeing.constructor_kwargs() == {"num_classes": 7}

    with pytest.raises(UsageError, match="they differ"):
        BuildOptions(num_classes=7, model_kwargs={"num_classes": 8}).constructor_kwargs()


def test_switches_for_weights_are_the_callers_own_only_for_code() -> None:
    options = BuildOptions(model_kwargs={"pretrained": True})

    with pytest.raises(UsageError, match="Cannot pass pretrained"):
        options.constructor_kwargs()
    assert options.constructor_kwargs(strict=False) == {"pretrained": True}


def test_an_input_that_would_take_all_memory() -> None:
    with pytest.raises(UsageError, match="elements in all"):
        parse_input_size("3,65536,65536")
