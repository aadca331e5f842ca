"""PipelineRL, which the paper ran: rows for its math domain's loader of local files."""

from __future__ import annotations

from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.export.files import write_jsonl
from midcourse.export.handover import Handover, Part

#: What PipelineRL's own verifier of its math domain can grade.
_CHECKER = "math"


def write(handover: Handover, out: Path) -> list[Part]:
    """Write ``<run>.jsonl``. Raises ArtifactError for problems that its verifier cannot grade."""
    others = [task.problem for task in handover.tasks if task.problem.checker != _CHECKER]
    if others:
        raise ArtifactError(
            f"pipelinerl: its own verifier grades mathematics alone, but {len(others)} problems "
            f"need another checker (first: {others[0].problem_id}, {others[0].checker!r}): "
            "leave them out of the run, or give another --format"
        )
    rows = [
        {
            "id": index,
            "dataset": handover.name,
            "task": task.user,
            # As PipelineRL's own sets write it, whatever our checker takes.
            "answer": f"\\boxed{{{task.problem.answer}}}",
            "problem_id": task.problem.problem_id,
        }
        for index, task in enumerate(handover.tasks)
    ]
    path = f"{handover.name}.jsonl"
    write_jsonl(out / path, rows)
    return [Part(path=path, what=f"{len(rows)} tasks with answers")]
