"""Draws the pictures of docs/concepts: ``python scripts/diagrams.py`` writes docs/images/diagrams.

The pictures take their colours from the page where they are part of one, and from the reader's
light or dark mode where they stand alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "diagrams"
#: Readable on white and on black: colour says what a word or a mark says as well.
STYLE = """
.mc { font: 13px system-ui, sans-serif; --mc-ink: #1f2328; --mc-paper: #fff; }
@media (prefers-color-scheme: dark) { .mc { --mc-ink: #e6e8eb; --mc-paper: #161a20; } }
[data-md-color-scheme="default"] .mc { --mc-ink: #1f2328; --mc-paper: #fff; }
[data-md-color-scheme="slate"] .mc { --mc-ink: #e6e8eb; --mc-paper: #161a20; }
.mc text { fill: var(--mc-ink); }
.mc .small { font-size: 11px; opacity: .85; }
.mc .mono { font-family: ui-monospace, monospace; font-size: 12px; }
.mc .box { fill: none; stroke: var(--mc-ink); stroke-width: 1.2; }
.mc .line { fill: none; stroke: var(--mc-ink); stroke-width: 1.2; }
.mc .blue { fill: #3b82f6; fill-opacity: .22; stroke: #3b82f6; }
.mc .green { fill: #10a37f; fill-opacity: .22; stroke: #10a37f; }
.mc .red { fill: #e5484d; fill-opacity: .2; stroke: #e5484d; }
.mc .grey { fill: #888; fill-opacity: .16; stroke: #888; }
.mc .b { font-weight: 600; }
"""


class Picture:
    """Shapes on a canvas, written as one SVG."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size, self._title = (width, height), title
        self._shapes: list[str] = []

    def box(
        self, x: float, y: float, width: float, lines: Sequence[str], kind: str = "box",
        height: float = 46,
    ) -> None:  # fmt: skip
        """Draw a box; its first line is bold, the others are small."""
        self._shapes.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )
        top = y + height / 2 + 5 - 8 * (len(lines) - 1)
        for number, line in enumerate(lines):
            style = "small" if number else "b"
            self.text(x + width / 2, top + 16 * number, line, style, "middle")

    def text(self, x: float, y: float, line: str, style: str = "", anchor: str = "start") -> None:
        """Write one line."""
        self._shapes.append(
            f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
            f"{escape(line)}</text>"
        )

    def arrow(self, points: Iterable[tuple[float, float]]) -> None:
        """Draw a line that ends in an arrowhead."""
        path = " L".join(f"{x:g},{y:g}" for x, y in points)
        self._shapes.append(f'<path class="line" d="M{path}" marker-end="url(#mc-arrow)"/>')

    def bar(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Draw a filled rectangle."""
        self._shapes.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'
        )

    def write(self, name: str) -> None:
        """Write the file."""
        width, height = self._size
        head = (
            f'<svg class="mc" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}"><title>{escape(self._title)}</title>'
        )
        marker = (
            '<defs><marker id="mc-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0,0 L8,4 L0,8 z" '
            'style="fill: var(--mc-ink)"/></marker></defs>'
        )
        parts = [head, f"<style>{STYLE.strip()}</style>", marker, *self._shapes, "</svg>"]
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{name}.svg").write_text("\n".join(parts) + "\n", "utf-8")


def loop() -> Picture:
    """Draw the method in one picture."""
    p = Picture(760, 250, "The loop: sample, select, propose, verify, patch, reinforce")
    boxes = [
        ("sample, grade", "64 rollouts a problem", "blue"),
        ("select", "hard: none is correct", "grey"),
        ("propose", "first error, one new step", "green"),
        ("verify", "continue, keep what works", "green"),
    ]
    for number, (name, what, kind) in enumerate(boxes):
        x = 10 + number * 190
        p.box(x, 20, 160, [name, what], kind, 60)
        if number:
            p.arrow([(x - 30, 50), (x, 50)])
    p.box(580, 150, 160, ["build-sft, train sft", "the patch"], "blue", 60)
    p.box(390, 150, 160, ["train rl", "GRPO, base and patched"], "blue", 60)
    p.box(200, 150, 160, ["evaluate, report", "held-out problems"], "grey", 60)
    p.arrow([(660, 80), (660, 150)])
    p.arrow([(580, 180), (550, 180)])
    p.arrow([(390, 180), (360, 180)])
    p.text(10, 175, "The model reviews its own", "small")
    p.text(10, 191, "wrong rollouts; a reference", "small")
    p.text(10, 207, "solution tells it what is right.", "small")
    return p


def steps() -> Picture:
    """Draw an attempt, its first error and what takes its place."""
    p = Picture(760, 300, "An attempt cut into steps, its first error, and the intervention")
    attempt = [
        ("Substep 1   Buys a quartet: 30 + 4 = 34.", "blue"),
        ("Substep 2   Loses an octet: 34 - 8 = 26.", "blue"),
        ("Substep 3   Buys a score: 26 + 17 = 43.", "red"),
        ("Substep 4   Loses an octet: 43 - 8 = 35.", "grey"),
        ("Substep 5   The answer is \\boxed{35}.", "grey"),
    ]
    p.text(20, 24, "the model's own wrong rollout", "b")
    for number, (line, kind) in enumerate(attempt):
        y = 38 + number * 42
        p.bar(20, y, 320, 32, kind)
        p.text(32, y + 21, line, "mono")
    p.text(420, 24, "what it continues from", "b")
    kept = [
        ("Buys a quartet: 30 + 4 = 34.", "blue"),
        ("Loses an octet: 34 - 8 = 26.", "blue"),
        ("Buys a score: 26 + 20 = 46.", "green"),
    ]
    for number, (line, kind) in enumerate(kept):
        y = 38 + number * 42
        p.bar(420, y, 300, 32, kind)
        p.text(432, y + 21, line, "mono")
    p.arrow([(340, 138), (420, 138)])
    p.text(346, 130, "replace", "small")
    p.text(420, 184, "prefix (blue) + intervention (green);", "small")
    p.text(420, 202, "the rest is sampled: continuations", "small")
    p.text(
        20,
        268,
        "blue: prefix, kept as sampled; red: first error, error_step 2, location 3",
        "small",
    )
    p.text(20, 286, "grey: follows from the error, dropped", "small")
    return p


def funnel() -> Picture:
    """Draw the levels at which problems and proposals are counted; widths mean no figure."""
    p = Picture(760, 310, "The funnel: every record has an outcome, every level adds up")
    levels = [
        ("problems", 1.0, "each is solved, hard or undecided", "blue"),
        ("hard problems", 0.8, "their wrong rollouts become cases", "blue"),
        ("proposals", 0.65, "one outcome for each question to the proposer", "green"),
        ("candidates", 0.5, "the first accepted proposal of each case", "green"),
        ("verified", 0.36, "at least one correct continuation", "green"),
        ("rows", 0.24, "one a problem, within the token limit", "blue"),
    ]
    for number, (name, share, what, kind) in enumerate(levels):
        y, width = 14 + number * 48, 330 * share
        p.bar(185 - width / 2, y, width, 36, kind)
        p.text(185, y + 23, name, "b", "middle")
        p.text(380, y + 23, what)
    return p


def training() -> Picture:
    """Draw the token strip of a row."""
    p = Picture(760, 200, "The tokens of an SFT row: what is context, what is trained")
    parts = [
        ("prompt", 190, "grey", "template and problem", "labels −100"),
        ("prefix", 210, "blue", "as it was sampled, id for id", "trained"),
        ("intervention", 170, "green", "one step, ends in a blank line", "trained"),
    ]
    x = 20.0
    for name, width, kind, what, loss in parts:
        p.bar(x, 50, width, 48, kind)
        p.text(x + width / 2, 79, name, "b", "middle")
        p.text(x + width / 2, 40, what, "small", "middle")
        p.text(x + width / 2, 118, loss, "small", "middle")
        x += width
    p.text(x + 14, 72, "no end-of-turn,", "small")
    p.text(x + 14, 88, "nothing follows", "small")
    p.text(20, 152, "Not in the row: the wrong step, and everything after it.", "")
    p.text(
        20,
        174,
        "Verification continued from the same ids, so what was verified is what is trained.",
        "",
    )
    return p


def signal() -> Picture:
    """Draw three groups of RL and their advantages."""
    p = Picture(760, 220, "Three kinds of groups: none correct, mixed, all correct")
    groups = [
        ("none correct", [0] * 8, "every advantage is 0", "nothing is learned: zero-advantage"),
        (
            "mixed",
            [0, 0, 1, 0, 0, 1, 0, 0],
            "right +0.75, wrong −0.25",
            "this group has a gradient",
        ),
        ("all correct", [1] * 8, "every advantage is 0", "nothing is left to learn"),
    ]
    for number, (name, rewards, worth, what) in enumerate(groups):
        y = 24 + number * 66
        p.text(20, y + 22, name, "b")
        for index, reward in enumerate(rewards):
            p.bar(140 + index * 36, y, 30, 34, "green" if reward else "red")
            p.text(155 + index * 36, y + 22, str(reward), "b", "middle")
        p.text(450, y + 14, worth)
        p.text(450, y + 32, what, "small")
    return p


def stages() -> Picture:
    """Draw which stage feeds which."""
    p = Picture(760, 210, "Which stage feeds which")
    first = ["sample", "grade", "select", "reference", "propose", "verify"]
    second = ["build-sft", "train sft", "train rl", "evaluate", "likelihood", "report"]
    for row, names in enumerate((first, second)):
        y = 24 + row * 100
        for number, name in enumerate(names):
            x = 14 + number * 124
            p.box(x, y, 104, [name], ("blue", "green")[row], 42)
            if number:
                p.arrow([(x - 20, y + 21), (x, y + 21)])
    p.arrow([(686, 66), (686, 95), (66, 95), (66, 124)])
    return p


if __name__ == "__main__":
    for draw in (loop, steps, funnel, training, signal, stages):
        draw().write(draw.__name__)
