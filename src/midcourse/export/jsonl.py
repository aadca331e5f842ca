"""Plain JSON lines, for people and for whatever has no format here."""

from __future__ import annotations

from pathlib import Path

from midcourse.data import write_problems
from midcourse.export.files import write_jsonl
from midcourse.export.handover import Handover, Part

_ROWS = {
    "row_id": "names the row",
    "problem_id": "names the problem",
    "problem": "the problem",
    "answer": "its gold answer",
    "reference_solution": "its reference solution; null if there is none",
    "user": "the user message",
    "prefix": "what stands before the intervention in the assistant's turn",
    "intervention": "the intervention; in a baseline the whole solution",
    "suffix": "a correct continuation, where the recipe appends one",
    "num_correct": "correct continuations in verification; of a baseline correct solutions",
    "num_continuations": "of how many",
    "closes_turn": "whether the row ends with an end-of-turn that is trained",
}


def write(handover: Handover, out: Path) -> list[Part]:
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
    return [
        Part(
            path="rows.jsonl", what=f"{len(rows)} rows as texts", fidelity=fidelity, columns=_ROWS
        ),
        Part(path="problems.jsonl", what=f"{len(handover.tasks)} problems"),
    ]
