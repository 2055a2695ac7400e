"""The package is an extra: without it, its models are refused with the reason; nothing else imports it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from spdify.errors import SourceError
from spdify.sources import build
from spdify.sources.ultralytics_package import ultralytics


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)  # as if it were not installed
    with pytest.raises(SourceError, match="not installed") as caught:
        build("ultralytics:yolov5n")
    assert "AGPL-3.0" in caught.value.hint
    assert "spdify[ultralytics]" in caught.value.hint


def test_a_broken_installation_is_another_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", type(sys)("ultralytics"))
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", None)
    with pytest.raises(SourceError, match="importing the package fails"):
        ultralytics("nn.tasks")


def test_nothing_imports_it_unasked() -> None:
    code = (
        "import sys, spdify\nspdify.convert('resnet18', input_size=(3, 32, 32), proof='site')\n"
        "sys.exit('ultralytics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_the_network_is_not_asked_on_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLO_OFFLINE", raising=False)
    asked = []
    monkeypatch.setattr(importlib, "import_module", lambda _: asked.append(os.environ.get("YOLO_OFFLINE")))
    ultralytics()
    assert asked == ["true"]
