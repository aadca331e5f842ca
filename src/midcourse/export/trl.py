"""TRL: ids and labels for `SFTTrainer`, prompts alone for `GRPOTrainer`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from midcourse.export.files import copy_file, write_parquet
from midcourse.export.handover import Handover, Part, conversation

_ROWS = {
    "input_ids": "ids of prompt and response",
    "labels": "the same, -100 where nothing is learned",
    "problem_id": "names the problem",
}
_TASKS = {
    "prompt": "the user message, as a conversation",
    "gold": "what the grader compares with: a checker's name and its value",
    "problem_id": "names the problem",
}


def write(handover: Handover, out: Path) -> list[Part]:
    """Write ``sft.parquet``, ``grpo.parquet`` and ``reward.py``."""
    rows = [
        {
            "input_ids": list(row.row.input_ids),
            "labels": list(row.row.labels),
            "problem_id": row.problem.problem_id,
        }
        for row in handover.rows
    ]
    write_parquet(out / "sft.parquet", rows)
    tasks = [
        {
            "prompt": conversation(task.user),
            "gold": asdict(task.problem.gold),
            "problem_id": task.problem.problem_id,
        }
        for task in handover.tasks
    ]
    write_parquet(out / "grpo.parquet", tasks)
    copy_file("trl_reward.py", out / "reward.py")
    return [
        Part(
            path="sft.parquet",
            what=f"{len(rows)} rows of ids and labels",
            fidelity=handover.ids_are,
            columns=_ROWS,
        ),
        Part(path="grpo.parquet", what=f"{len(tasks)} prompts with golds", columns=_TASKS),
        Part(path="reward.py", what="midcourse's grader as a reward; None where it cannot tell"),
    ]
