"""The report in a real browser: what models and data wrote is text, and nothing leaves the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from midcourse.metrics import Count
from midcourse.printable import printable
from midcourse.records import Condition
from midcourse.report.collect import HARD, ReportData
from midcourse.report.estimates import ShapeLine
from midcourse.report.figures import draw_figures
from midcourse.report.findings import Finding, Verdict
from midcourse.report.html import render_html
from midcourse.report.layout import Report, report_page
from midcourse.table import Table

CHROMIUM = os.environ.get("MIDCOURSE_CHROMIUM") or shutil.which("chromium") or ""

PAYLOADS = [
    "<script>owned()</script>",
    "</script><script>owned()</script>",
    "</title></style><script>owned()</script>",
    "<img src=x onerror=owned()>",
    "<img src=http://127.0.0.1:9/pixel>",
    "<svg onload=owned()><script>owned()</script></svg>",
    "<iframe srcdoc='<script>parent.owned()</script>'></iframe>",
    "<object data='data:text/html,<script>owned()</script>'></object>",
    "<a href='javascript:owned()' autofocus onfocus=owned()>x</a>",
    "<details open ontoggle=owned()>x</details>",
    "<math><mtext><table><mglyph><style><img src=x onerror=owned()>",
    "<style>@import 'http://127.0.0.1:9/x.css';</style><link rel=stylesheet href=http://127.0.0.1:9/>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><base href=http://127.0.0.1:9/>",
    "<form action=http://127.0.0.1:9/><input autofocus onfocus=owned()></form>",
    "\" onmouseover=\"owned()\" x=\"",
    "' onmouseover='owned()' x='",
    "<!--<script>", "-->", "]]>", "&lt;script&gt;owned()&lt;/script&gt;",
    "\u2028owned()\u2029", "\\u003cscript\\u003eowned()", "${owned()}", "{{owned()}}",
    "__proto__", "constructor", "toString",
]  # fmt: skip
#: Whatever of ours stands in the page, and nothing else.
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "table",
    "thead", "tbody", "tr", "th", "td",
    "span", "figure", "figcaption", "svg", "g", "text", "rect", "line", "polyline", "polygon",
    "circle", "nav", "main", "section", "ul", "li", "a", "b", "dl", "dt", "dd",
}  # fmt: skip


def page_of(payloads: list[str]) -> str:
    everything = " ".join(payloads)
    counts = {text: {text: [Count(4, 1), Count(4, 0)]} for text in payloads}
    data = ReportData(
        name=everything, seed=0, funnel={text: {text: 1, "total": 1} for text in payloads},
        conditions={Condition.PREFIX: [Count(4, 1)]}, guided={}, searches={},
        evaluations=counts, arms={}, courses={}, likelihoods=[], model_labels={}, error_steps=[1],
        ks=dict.fromkeys(payloads, (1, 2)), problem_ids={HARD: payloads[:1]},
        lengths={text: Counter({3: 2, 9: 1}) for text in payloads}, sft_log={},
    )  # fmt: skip
    found = [
        Finding(
            name=text, about=text, sentence=text, estimate=1, low=0, high=2, unit=text, n=1,
            n_unit=text, verdict=Verdict.OPEN,
        )
        for text in payloads
    ]  # fmt: skip
    report = Report(
        data=data, facts={text: text for text in payloads}, findings=found, missing=payloads,
        shape=[ShapeLine(text, True, text) for text in payloads],
        costs=Table(everything, tuple(payloads), (tuple(payloads),), everything),
        drawings=draw_figures(data),
    )  # fmt: skip
    return render_html(report_page(report))


@dataclass
class Browser:
    """A headless Chromium, asked over its pipe in the DevTools protocol."""

    to_it: IO[bytes]
    from_it: IO[bytes]
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _last: int = 0
    _rest: bytes = b""

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command; what happened meanwhile is kept in `events`."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to_it.write(json.dumps(message).encode() + b"\0")
        self.to_it.flush()
        while True:
            reply = self._read()
            if reply.get("id") == self._last:
                assert "error" not in reply, reply
                return dict(reply["result"])
            self.events.append(reply)

    def value(self, expression: str) -> Any:
        """Return what a piece of JavaScript gives in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def wait_for(self, event: str) -> None:
        """Read until an event has happened."""
        while not any(seen.get("method") == event for seen in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = self.from_it.read1(65_536)  # type: ignore[attr-defined]
            assert piece, "the browser is gone"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    their_end, to_it = os.pipe()
    from_it, our_end = os.pipe()
    command = (
        f'exec "$1" --headless --no-sandbox --disable-gpu --remote-debugging-pipe '
        f'--user-data-dir="$2" about:blank 3<&{their_end} 4>&{our_end}'
    )
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, "sh", CHROMIUM, str(tmp_path / "profile")],
        pass_fds=(their_end, our_end), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_end)
    os.close(our_end)
    with os.fdopen(to_it, "wb") as writing, os.fdopen(from_it, "rb") as reading:
        yield Browser(writing, reading)
    process.terminate()
    process.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium here, and MIDCOURSE_CHROMIUM names none")
def test_the_report_is_inert_in_a_real_browser(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "report.html"
    page.write_text(page_of(PAYLOADS), "utf-8")
    open_page(browser, page)
    touch_everything(browser)
    names = browser.value(
        "[...new Set([...document.querySelectorAll('*')].map((e) => e.localName))]"
    )
    assert set(names) <= ELEMENTS
    assert browser.value("document.scripts.length") == 0
    attributes = "[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes])"
    assert not browser.value(f"{attributes}.filter((a) => a.name.startsWith('on')).length")
    assert not browser.value(f"{attributes}.filter((a) => a.name === 'src').length")
    links = browser.value(f"{attributes}.filter((a) => a.name === 'href').map((a) => a.value)")
    assert links
    assert all(link == "view.html" or re.fullmatch(r"#s\d+", link) for link in links)
    assert browser.value("document.title") == printable(f"midcourse: {' '.join(PAYLOADS)}")
    assert browser.value("window.ownedTimes") == 0
    # What a script would try is refused by the page's policy too, so the test can fail.
    browser.value(
        "document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/' }))"
    )
    browser.value("document.body.insertAdjacentHTML('beforeend', '<p onclick=owned()></p>')")
    browser.value("document.body.lastElementChild.click()")
    assert browser.value("window.ownedTimes") == 0
    happened = [event.get("method") for event in browser.events]
    assert "Page.javascriptDialogOpening" not in happened
    assert "Runtime.exceptionThrown" not in happened
    sent = [e["params"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    failed = [e["params"] for e in browser.events if e.get("method") == "Network.loadingFailed"]
    blocked = {one["requestId"] for one in failed if one.get("blockedReason") == "csp"}
    urls = [one["request"]["url"] for one in sent if one["requestId"] not in blocked]
    assert urls == [page.as_uri()]


def open_page(browser: Browser, page: Path) -> None:
    """Show a page whose scripts would be noticed if they called ``owned``."""
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    attached = browser.ask("Target.attachToTarget", targetId=target, flatten=True)
    browser.session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log"):
        browser.ask(f"{domain}.enable")
    browser.ask(
        "Page.addScriptToEvaluateOnNewDocument",
        source="window.ownedTimes = 0; window.owned = () => { window.ownedTimes += 1; };",
    )
    browser.ask("Page.navigate", url=page.as_uri())
    browser.wait_for("Page.loadEventFired")


def touch_everything(browser: Browser) -> None:
    """Do to every element what a reader could do."""
    browser.value(
        "document.querySelectorAll('*').forEach((node) => {"
        " for (const name of ['mouseover', 'focus', 'toggle', 'load', 'error'])"
        " node.dispatchEvent(new Event(name)); })"
    )


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium here, and MIDCOURSE_CHROMIUM names none")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_readable_in_both_schemes_and_nothing_is_wider_than_a_phone(
    tmp_path: Path, browser: Browser, scheme: str
) -> None:
    page = tmp_path / "report.html"
    page.write_text(page_of(["held_out", "a"]), "utf-8")
    open_page(browser, page)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.ask("Emulation.setEmulatedMedia", features=[feature])
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    back = brightness(browser, "getComputedStyle(document.body).backgroundColor")
    text = brightness(browser, "getComputedStyle(document.querySelector('svg text')).fill")
    assert (back > 0.9, text < 0.2) == (scheme == "light", scheme == "light")
    assert abs(back - text) > 0.7
    figure = "getComputedStyle(document.querySelector('figure svg')).backgroundColor"
    assert browser.value(figure) == "rgba(0, 0, 0, 0)"
    assert browser.value("document.documentElement.scrollWidth") <= 390
    happened = [event.get("method") for event in browser.events]
    assert "Log.entryAdded" not in happened, "the page's own policy is broken"


def brightness(browser: Browser, expression: str) -> float:
    """Return the mean of a colour's three channels, 0 to 1."""
    channels = re.findall(r"\d+", str(browser.value(expression)))[:3]
    return sum(map(int, channels)) / (3 * 255)
