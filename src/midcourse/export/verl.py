"""verl: a Parquet file of prompts with a reward function file, and texts for its SFT trainer."""

from __future__ import annotations

from pathlib import Path

from midcourse.export.files import copy_file, write_parquet
from midcourse.export.handover import ADDS_END_OF_TURN, Handover, Part, conversation

_TASKS = {
    "data_source": "data set or kind of the problem",
    "prompt": "the user message, as a conversation",
    "ability": "the checker",
    "reward_model": "`ground_truth`: what the checker compares with",
    "extra_info": "index, split, problem id and checker",
}
_ROWS = {"messages": "the user message and the assistant's reply"}


def write(handover: Handover, out: Path) -> list[Part]:
    """Write ``rl.parquet``, ``reward.py`` and ``sft.parquet``."""
    tasks = [
        {
            "data_source": task.problem.source,
            "prompt": conversation(task.user),
            "ability": task.problem.checker,
            "reward_model": {"style": "rule", "ground_truth": task.problem.gold.value},
            "extra_info": {
                "index": index,
                "split": task.problem.split,
                "problem_id": task.problem.problem_id,
                "checker": task.problem.checker,
            },
        }
        for index, task in enumerate(handover.tasks)
    ]
    write_parquet(out / "rl.parquet", tasks)
    copy_file("verl_reward.py", out / "reward.py")
    rows = [{"messages": conversation(row.user, row.response)} for row in handover.rows]
    write_parquet(out / "sft.parquet", rows)
    closed = all(row.row.closes_turn for row in handover.rows)
    ending = "closes the turn, as these rows do" if closed else ADDS_END_OF_TURN
    fidelity = "; ".join([ending, *handover.text_losses()])
    return [
        Part(path="rl.parquet", what=f"{len(tasks)} prompts with golds", columns=_TASKS),
        Part(path="reward.py", what="midcourse's grader as compute_score"),
        Part(
            path="sft.parquet", what=f"{len(rows)} conversations", fidelity=fidelity, columns=_ROWS
        ),
    ]
