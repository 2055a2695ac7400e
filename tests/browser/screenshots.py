"""Pictures of a report page, how long it takes to open, and its size.

    python tests/browser/screenshots.py BUNDLE_OR_HTML -o FOLDER

Writes light.png, dark.png, narrow.png (400 px), print.pdf and readme.png, the top of the page beside its picture of a
kernel. Not a test. `find_chromium` and `launch` are also what the tests open pages with.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
HOW = "no Chromium is there: `apt-get install chromium`, or set SPDIFY_CHROMIUM to the program"
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run")
OPENINGS = 5
MOST_BYTES = 300_000
WIDTH, HEIGHT = 1200, 900
ROWS, LEAST_HEIGHT = 8, 1400  # of the README's picture: proofs, and its height where there is no kernel


def find_chromium() -> str | None:
    """Give the program's path, or None."""
    return os.environ.get("SPDIFY_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright: Playwright, program: str) -> Browser:
    """Start it; root may not have the sandbox."""
    return playwright.chromium.launch(executable_path=program, args=[*QUIET], chromium_sandbox=os.geteuid() != 0)


def opened(browser: Browser, file: Path, *, scheme: str = "light", width: int = WIDTH) -> Page:
    """Open a page without a network."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": HEIGHT}, offline=True, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(file.as_uri())
    return page


def opening_time(browser: Browser, file: Path) -> float:
    """Give the milliseconds until the page is loaded, the median of some openings."""
    times = []
    for _ in range(OPENINGS):
        page = opened(browser, file)
        page.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
        times.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        page.context.close()
    return statistics.median(times)


def readme_picture(page: Page) -> bytes:
    """Give the answer, the tiles and the first proofs, above the first kernel: what was done, and to a weight.

    256 colours: flat areas need no more, and a README should open fast.
    """
    parts = page.evaluate(
        """([rows, least]) => {
            const edges = selector => document.querySelector(selector)?.getBoundingClientRect();
            const row = Array.from(document.querySelectorAll("#checks tbody tr")).slice(0, rows).at(-1);
            const head = edges("#kernels"), kernel = edges("#kernels ~ details");
            if (!row || !kernel) return [[0, least]];
            const proofs = [0, row.getBoundingClientRect().bottom + 8];
            return [proofs, [head.top, head.bottom + 8], [kernel.top, kernel.bottom + 4]];
        }""",
        [ROWS, LEAST_HEIGHT],
    )
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    cut = [whole.crop((0, int(begin), WIDTH, min(int(end), whole.height))) for begin, end in parts]
    picture = Image.new("RGB", (WIDTH, sum(part.height for part in cut)), "white")
    height = 0
    for part in cut:
        picture.paste(part, (0, height))
        height += part.height
    stream = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main() -> None:
    """Write the pictures and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="BUNDLE_OR_HTML")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    file = (options.page / "report.html" if options.page.is_dir() else options.page).resolve()
    if not file.is_file():
        sys.exit(f"cannot open {file}: there is no such file")
    program = find_chromium()
    if program is None:
        sys.exit(HOW)
    from playwright.sync_api import sync_playwright

    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright, program)
        for name, scheme, width in (("light", "light", WIDTH), ("dark", "dark", WIDTH), ("narrow", "light", 400)):
            opened(browser, file, scheme=scheme, width=width).screenshot(path=folder / f"{name}.png", full_page=True)
        page = opened(browser, file)
        (folder / "readme.png").write_bytes(picture := readme_picture(page))
        page.pdf(path=folder / "print.pdf", prefer_css_page_size=True)
        milliseconds = opening_time(browser, file)
        print(f"{file.name}: {file.stat().st_size:,} bytes, loaded in {milliseconds:.0f} ms (median of {OPENINGS})")
        print(f"{browser.browser_type.name} {browser.version}; readme.png: {len(picture):,} bytes")
        browser.close()
    if len(picture) > MOST_BYTES:
        sys.exit(f"readme.png is larger than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
