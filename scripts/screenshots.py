"""`make screenshots`: the viewer of a run, as docs/viewer.md shows it, photographed in Chromium."""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, ViewportSize

from browser import headless
from midcourse.viewer.write import write_view

IMAGES = Path(__file__).parent.parent / "docs" / "images"
#: What a reader of the method looks at first: proposals that were trained on, the best ones first.
TRAINED = "#?kind=proposal&trained=yes&sort=rate&order=descending"


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture: where in the page, how wide and high in pixels, and what is done before it."""

    name: str
    fragment: str
    width: int = 1280
    height: int = 860
    scheme: Literal["light", "dark"] = "light"
    key: str = ""
    at: str = ""
    """The element that is scrolled into view."""


SHOTS = (
    Shot(name="viewer-light", fragment=TRAINED),
    Shot(name="viewer-dark", fragment=TRAINED, scheme="dark", height=620, at=".tokens"),
    Shot(name="viewer-narrow", fragment=TRAINED, width=390, height=844, key="j"),
    Shot(name="viewer-compare", fragment="#?kind=rollout&set=held_out&verdict=correct", key="c"),
)


def take(browser: Browser, page_file: Path, shot: Shot) -> Path:
    """Take one picture and return its file."""
    size = ViewportSize(width=shot.width, height=shot.height)
    page = browser.new_page(viewport=size, color_scheme=shot.scheme)
    page.goto(page_file.as_uri() + shot.fragment)
    page.wait_for_selector("#trace:not([aria-busy]) > *", state="attached")
    if shot.key:
        page.keyboard.press(shot.key)
        page.wait_for_timeout(300)
    if shot.at:
        page.locator(shot.at).evaluate("node => node.scrollIntoView({ block: 'end' })")
    file = IMAGES / f"{shot.name}.png"
    picture = Image.open(io.BytesIO(page.screenshot()))
    # A palette: flat colours and text need no more, and the repository keeps every version.
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        file, optimize=True
    )
    page.close()
    return file


def main(run: Path) -> None:
    """Write all pictures of a run."""
    with tempfile.TemporaryDirectory() as folder, headless() as browser:
        page_file = Path(folder) / "view.html"
        write_view(run, page_file)
        for shot in SHOTS:
            file = take(browser, page_file, shot)
            sys.stdout.write(f"{file}: {file.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
