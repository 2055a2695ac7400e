"""Tests of Ultralytics' networks: they need the extra, and must not leave its settings on the machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
WHY = "needs Ultralytics' package: pip install -c constraints.txt -e '.[ultralytics]'"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests here, and skip them without the package."""
    absent = importlib.util.find_spec("ultralytics") is None
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.ultralytics)
            if absent:
                item.add_marker(pytest.mark.skip(reason=WHY))


@pytest.fixture(scope="session", autouse=True)
def _settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the package's settings in a folder of the tests': it reads the variable when it is imported."""
    before = os.environ.get("YOLO_CONFIG_DIR")
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("ultralytics"))
    yield
    os.environ.pop("YOLO_CONFIG_DIR")
    if before is not None:
        os.environ["YOLO_CONFIG_DIR"] = before
