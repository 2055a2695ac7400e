from __future__ import annotations

import pytest

from spdify.errors import UsageError
from spdify.sources import ParsedSpec, parse_spec
from spdify.sources.spec import safe_name


@pytest.mark.parametrize(
    ("spec", "expected", "canonical", "name"),
    [
        ("resnet50", ParsedSpec("timm", "resnet50"), "timm:resnet50", "resnet50"),
        ("timm:resnet50", ParsedSpec("timm", "resnet50"), "timm:resnet50", "resnet50"),
        ("resnet50.a1_in1k", ParsedSpec("timm", "resnet50.a1_in1k"), "timm:resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("tv:resnet18", ParsedSpec("torchvision", "resnet18"), "torchvision:resnet18", "resnet18"),
        ("ultralytics:yolov5n", ParsedSpec("ultralytics", "yolov5n"), "ultralytics:yolov5n", "yolov5n"),
        ("runs/best.pt", ParsedSpec("ultralytics", "runs/best.pt"), "ultralytics:runs/best.pt", "best.pt"),
        ("torchvision:resnet18", ParsedSpec("torchvision", "resnet18"), "torchvision:resnet18", "resnet18"),
        ("hf-hub:org/net", ParsedSpec("hf-hub", "org/net"), "hf-hub:org/net", "net"),
        ("hf_hub:org/net@v1", ParsedSpec("hf-hub", "org/net@v1"), "hf-hub:org/net@v1", "net"),
        ("local-dir:/some/folder", ParsedSpec("local-dir", "/some/folder"), "local-dir:/some/folder", "folder"),
        ("a/b.py:make", ParsedSpec("code", "a/b.py", "make"), "a/b.py:make", "make"),
        (r"C:\a\b.py:make", ParsedSpec("code", r"C:\a\b.py", "make"), r"C:\a\b.py:make", "make"),
        ("package.module:Net", ParsedSpec("code", "package.module", "Net"), "package.module:Net", "Net"),
    ],
)
def test_each_form_is_read(spec: str, expected: ParsedSpec, canonical: str, name: str) -> None:
    parsed = parse_spec(spec)

    assert parsed == expected
    assert parsed.canonical == canonical
    assert parsed.name == name


def test_canonical_specs_read_as_themselves() -> None:
    for spec in ("timm:resnet50", "torchvision:resnet18", "hf-hub:a/b", "local-dir:x", "a.py:f", "a.b:f"):
        assert parse_spec(spec).canonical == spec


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ("", "torchvision:NAME"),
        ("timm:", "torchvision:NAME"),
        ("nets/mine.py", "nets/mine.py:FACTORY"),
        ("org/net", "hf-hub:org/net"),
        ("a:b:c", "path/to/file.py:FACTORY"),
        ("file.py:not a name", "path/to/file.py:FACTORY"),
        ("https://host/net", "hf-hub:ORG/NAME"),
    ],
)
def test_others_are_refused_with_advice(spec: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(spec)

    assert advice in caught.value.hint


@pytest.mark.parametrize(("text", "name"), [("a b/c", "a_b_c"), ("..", "model"), (".hidden", "hidden"), ("x.y", "x.y")])
def test_names_fit_a_folder(text: str, name: str) -> None:
    assert safe_name(text) == name
