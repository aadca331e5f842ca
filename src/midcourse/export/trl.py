"""TRL: ids and labels for `SFTTrainer`, prompts alone for `GRPOTrainer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from midcourse.export.files import copy_file, write_parquet
from midcourse.export.handover import FAITHFUL, Handover, Part, conversation

_USAGE = """
```python
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from reward import correct

sft = load_dataset("parquet", data_files="sft.parquet", split="train")
# TRL's max_length, 1024 by default, would cut off the end of a row: the intervention.
SFTTrainer(model=MODEL, train_dataset=sft, args=SFTConfig(max_length=None, packing=False)).train()

grpo = load_dataset("parquet", data_files="grpo.parquet", split="train")
GRPOTrainer(model=MODEL, train_dataset=grpo, reward_funcs=[correct], args=GRPOConfig(…)).train()
```

Do not hand the rows over as texts or with `completion_mask`: TRL ends every text it encodes with an
end-of-turn, and ignores the mask unless the columns are named `prompt` and `completion`.
"""


def write(handover: Handover, out: Path) -> tuple[Sequence[Part], str]:
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
    parts = [
        Part(path="sft.parquet", what=f"{len(rows)} rows of ids and labels", fidelity=FAITHFUL),
        Part(path="grpo.parquet", what=f"{len(tasks)} prompts with golds"),
        Part(path="reward.py", what="midcourse's grader as a reward; None where it cannot tell"),
    ]
    return parts, _USAGE
