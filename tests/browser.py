"""A real headless Chromium for tests of pages, and what happened in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Request,
    sync_playwright,
)

CHROMIUM = os.environ.get("MIDCOURSE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), ""
)
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium here, and MIDCOURSE_CHROMIUM names none"
)
#: Notices every call of ``owned`` and everything that the page's policy refused.
_WATCH = """
window.ownedTimes = 0; window.owned = () => { window.ownedTimes += 1; };
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.violations.push(event.effectiveDirective + ' ' + event.blockedURI + ' ' + event.sample);
});
"""


@dataclass(eq=False)  # not frozen: playwright keeps a field of its own on who listens
class Opened:
    """A page, with what it asked for, said and let through."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, uncaught exceptions, dialogs."""

    def quiet(self) -> None:
        """Assert that nothing ran, nothing was asked for and nothing was refused."""
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("file:")] == []
        assert len(self.requests) == 1
        assert self.page.evaluate("window.ownedTimes") == 0
        assert self.page.evaluate("window.violations") == []

    def ask(self, request: Request) -> None:
        """Note a request."""
        self.requests.append(request.url)

    def fail(self, error: Error) -> None:
        """Note an exception that nothing caught."""
        self.complaints.append(str(error))

    def dismiss(self, dialog: Dialog) -> None:
        """Note a dialog, which only a script that is not ours opens."""
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def hear(self, message: ConsoleMessage) -> None:
        """Note what the console complains about."""
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match, in a line each."""
        return [" ".join(t.split()) for t in self.page.locator(selector).all_inner_texts()]


@contextmanager
def headless() -> Iterator[Browser]:
    """Start the browser for a block."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, path: Path, fragment: str = "", **options: Any) -> Iterator[Opened]:
    """Show a file in a fresh context, and close it after the block."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    seen = Opened(page)
    page.on("request", seen.ask)
    page.on("pageerror", seen.fail)
    page.on("dialog", seen.dismiss)
    page.on("console", seen.hear)
    page.add_init_script(_WATCH)
    page.goto(path.as_uri() + fragment)
    page.wait_for_selector("#trace:not([aria-busy]) > *")
    yield seen
    context.close()
