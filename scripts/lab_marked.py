"""Writes rollouts that the lab marks: ``python scripts/lab_marked.py 1 marked.jsonl``.

They are the base's own, of held-out problems. `midcourse localize` asks about them as about
solutions that people marked: about right ones too, which a proposer is never asked about. The first
argument is the seed.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from midcourse.config import SamplingConfig
from midcourse.lab.probe import Probe
from midcourse.lab.worlds import COUNTS
from midcourse.stages.propose import Case
from midcourse.steps import split_steps

#: Kinds of problems by what the source is called; known ones are where rollouts are right.
SOURCES = {"lab/notions of training": ("single", "composed", "known"), "lab/control": ("control",)}
#: Problems of a kind, rollouts of each, and how many right and wrong ones of a source are kept.
NUM_PROBLEMS, NUM_ROLLOUTS, NUM_KEPT = 40, 4, 60
SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, max_tokens=140)


def main(seed: int, out: Path) -> None:
    """Write one JSON object a line, in the form of our own that localize reads."""
    probe, rows = Probe.of("lab", COUNTS, seed, SAMPLING), []
    for source, kinds in SOURCES.items():
        kept: dict[bool, list[dict[str, object]]] = {True: [], False: []}
        for kind in kinds:
            for case in probe.sample(kind, NUM_PROBLEMS, NUM_ROLLOUTS):
                row = marked(case, source, probe.error(case))
                if row is not None:
                    kept[row["first_error_step"] == -1].append(row)
        for of in kept.values():
            rows += random.Random(seed).sample(of, min(NUM_KEPT, len(of)))
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def marked(case: Case, source: str, error: int | None) -> dict[str, object] | None:
    """Return a rollout with its mark; None where what is wrong is that steps are missing."""
    steps = split_steps(case.rollout.text)
    if error is not None and error >= len(steps):
        return None
    return {
        "id": case.rollout.rollout_id,
        "source": source,
        "problem": case.problem.text,
        "steps": steps,
        "first_error_step": -1 if error is None else error,
        "reference_solution": case.problem.reference_solution,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
