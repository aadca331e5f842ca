"""Plain JSON lines, for people and for whatever has no format here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from midcourse.data import write_problems
from midcourse.export.files import write_jsonl
from midcourse.export.handover import Handover, Part

_USAGE = """
`rows.jsonl` is for reading: the problem, the sampled prefix, and the intervention with how many of
its continuations were right. Whoever trains on it must take care of two things that texts do not
say: nothing may close the turn after the intervention, and the prefix should keep its sampled ids
(`--format trl` hands over ids). `problems.jsonl` is what midcourse itself reads.
"""


def write(handover: Handover, out: Path) -> tuple[Sequence[Part], str]:
    """Write ``rows.jsonl`` and ``problems.jsonl``."""
    rows = [
        {
            "row_id": row.row.row_id,
            "problem_id": row.problem.problem_id,
            "problem": row.problem.text,
            "answer": row.problem.answer,
            "reference_solution": row.problem.reference_solution,
            "user": row.user,
            "prefix": row.prefix,
            "intervention": row.intervention,
            "suffix": row.suffix,
            "num_correct": row.row.num_correct,
            "num_continuations": row.row.num_continuations,
            "closes_turn": row.row.closes_turn,
        }
        for row in handover.rows
    ]
    write_jsonl(out / "rows.jsonl", rows)
    write_problems((task.problem for task in handover.tasks), out / "problems.jsonl")
    fidelity = "; ".join(["texts, to be read", *handover.text_losses()])
    parts = [
        Part(path="rows.jsonl", what=f"{len(rows)} rows as texts", fidelity=fidelity),
        Part(path="problems.jsonl", what=f"{len(handover.tasks)} problems"),
    ]
    return parts, _USAGE
