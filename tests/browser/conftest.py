"""A browser without a network, and bundles to look at in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import spdify
from spdify.records import Report
from tests.browser.looking import unfold
from tests.browser.screenshots import HOW, find_chromium, launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Request, Route

SMALL = "small"  # with refusals, and an ONNX file
PATIENCE_S = 10  # machines are shared
PROOFS = {"resnet50": "model", "densenet121": "site", "hrnet_w18_small": "site", "vit_tiny_patch16_224": "site"}
MODELS = (SMALL, *PROOFS)


class Doubled(nn.Conv2d):
    """Refused: it computes something of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2, 2)
        self.doubled = Doubled(8, 12, 3, 2, 1)
        self.down = nn.Conv2d(12, 16, 1, 2, bias=False)
        self.average = nn.AvgPool2d(2, 2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.stem(x)).relu())
        x = self.average(self.down(self.doubled(x).relu()).relu())
        return self.head(x.mean((2, 3)))


def _convert(name: str, folder: Path) -> None:
    if name == SMALL:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net, image = Small(), torch.randn(1, 3, 64, 64)
        spdify.convert(net, example_input=image, overrides=("max-pool.form=keep",)).save(folder)
    else:
        spdify.convert(name, proof=PROOFS[name]).save(folder, onnx=False)
    (folder / "model.safetensors").unlink()  # a hundred megabytes that no page needs


@dataclass(frozen=True)
class Bundle:
    """What the pages of a bundle are made from, and the page."""

    folder: Path

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    @property
    def json(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text(encoding="utf-8"))

    @property
    def report(self) -> Report:
        return Report.model_validate_json((self.folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def bundle_of(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Give a function that converts a model once for all workers; without a browser nothing is converted."""
    del browser
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def give(name: str) -> Bundle:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _convert(name, folder)
        return Bundle(folder)

    return give


@pytest.fixture(params=MODELS)
def bundle(request: pytest.FixtureRequest, bundle_of: Callable[[str], Bundle]) -> Bundle:
    """Give each of the bundles."""
    return bundle_of(request.param)


@pytest.fixture
def small(bundle_of: Callable[[str], Bundle]) -> Bundle:
    return bundle_of(SMALL)


@pytest.fixture
def resnet50(bundle_of: Callable[[str], Bundle]) -> Bundle:
    return bundle_of("resnet50")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    needed = os.environ.get("SPDIFY_NEEDS_BROWSER") == "1"
    program = find_chromium()
    if program is None and needed:
        pytest.fail(HOW)
    if program is None:
        pytest.skip(HOW)
    if not needed:
        pytest.importorskip("playwright", reason="playwright is part of the extra `dev`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright, program)
        yield browser
        browser.close()


@dataclass
class Visit:
    """An open page, and all that it should not do."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def forgive(self, words: str, *, least: int = 1) -> None:
        """Take out faults that a test has provoked, once they are there."""
        found: list[str] = []
        until = time.monotonic() + PATIENCE_S
        while len(found) < least and time.monotonic() < until:
            self.page.wait_for_timeout(20)  # what the browser has to say comes in meanwhile
            found = [fault for fault in self.faults if words in fault]
        assert len(found) >= least, f"no fault with {words!r} among {self.faults}"
        self.faults[:] = [fault for fault in self.faults if words not in fault]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Give a function that opens a page; at the end none has complained, asked for anything, or opened a dialog."""
    visits: list[Visit] = []

    def give(file: Path, *, width: int = 1200, hash: str = "", **options: Any) -> Visit:  # noqa: A002, ANN401
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        context.set_default_timeout(PATIENCE_S * 1000)
        seen = Visit(context.new_page())
        visits.append(seen)
        address = file.resolve().as_uri()

        def note(kind: str, words: str) -> None:
            seen.faults.append(f"{kind}: {words}")

        def answer(route: Route, request: Request) -> None:
            if request.url.partition("#")[0] == address:
                route.continue_()
            else:
                route.abort()

        def ask(request: Request) -> None:
            if request.url.partition("#")[0] != address:
                note("request", request.url)

        context.route("**/*", answer)
        context.on("request", ask)
        seen.page.on("console", lambda message: note(f"console {message.type}", message.text))
        seen.page.on("pageerror", lambda error: note("error", str(error)))
        seen.page.on("dialog", lambda dialog: (note("dialog", dialog.message), dialog.dismiss()))
        seen.page.goto(address + hash)
        return seen

    yield give
    faults = [fault for seen in visits for fault in seen.faults]
    for seen in visits:
        seen.page.context.close()
    assert faults == []


@pytest.fixture
def opened(bundle: Bundle, visit: Callable[..., Visit]) -> Page:
    """Give the page of each bundle, with all that is folded open."""
    page = visit(bundle.page).page
    unfold(page)
    return page
