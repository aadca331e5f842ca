"""How the viewer's page bears many long proposals: size, time to the first trace, to search all.

python benchmarks/bench_viewer.py [PROPOSALS], with PYTHONPATH=tests, in the Chromium that is there.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import views
from browser import headless
from midcourse.viewer.data import Continuation, ProposalBody
from midcourse.viewer.page import write_page

CHUNK = 50
CONTINUATIONS = 16


def words(rng: random.Random, count: int) -> str:
    """Return random words, which compress badly, and so make a page that is too large if any is."""
    return " ".join(f"{rng.getrandbits(24):x}" for _ in range(count))


def body(number: int) -> ProposalBody:
    """Return a proposal with continuations of about 2 kB each."""
    rng = random.Random(number)
    drawn = [
        Continuation(
            rollout_id=f"c-{number}-{index}",
            condition="prefix_intervention",
            text=words(rng, 300),
            verdict="incorrect" if index else "correct",
            answer=str(index),
        )
        for index in range(CONTINUATIONS)
    ]
    steps = [words(rng, 30) for _ in range(12)]
    return views.proposal_body(f"idea-{number}", steps=steps, continuations=drawn, tokens=[])


def chunks(count: int) -> Iterator[Sequence[ProposalBody]]:
    """Yield bodies, a chunk at a time, as a collector does."""
    for start in range(0, count, CHUNK):
        yield [body(number) for number in range(start, min(count, start + CHUNK))]


def main(count: int) -> None:
    """Write a page of `count` proposals, open it, search it twice."""
    with tempfile.TemporaryDirectory() as folder, headless() as browser:
        file = Path(folder) / "view.html"
        started = time.perf_counter()
        with file.open("wb") as stream:
            stream.writelines(write_page(views.large_view(count, chunks(count), CHUNK)))
        print(
            f"written   {time.perf_counter() - started:6.1f} s, {file.stat().st_size / 1e6:.0f} MB"
        )
        page = browser.new_page()
        page.set_default_timeout(500_000)
        started = time.perf_counter()
        page.goto(file.as_uri(), wait_until="commit")
        page.locator("#count", has_text=f"{count:,} of").wait_for()
        print(f"list      {time.perf_counter() - started:6.1f} s")
        page.wait_for_selector("#trace:not([aria-busy]) > *")
        print(f"trace     {time.perf_counter() - started:6.1f} s")
        last, middle = count - 1, count // 2
        for query, found in ((f"c-{last}-3", last), (f"idea-{middle}", middle)):
            started = time.perf_counter()
            page.locator("#query").fill(query)
            page.wait_for_selector(f"h2:text('Proposal p-{found}')")
            page.locator("#progress").wait_for(state="hidden")
            print(f"search    {time.perf_counter() - started:6.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
