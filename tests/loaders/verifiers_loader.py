"""Loads an export as verifiers loads an environment and prints tasks and rewards, as JSON.

    python verifiers_loader.py FOLDER

Run by an interpreter that has verifiers (`make test-exports`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any

from verifiers.v1.configs.taskset import TasksetConfig
from verifiers.v1.utils.loaders import taskset_class


async def rewards(task: Any) -> dict[str, object]:
    """Grade a right and a wrong reply by the task's own reward, and the gold answer."""
    right = SimpleNamespace(last_reply=f"So it is \\boxed{{{task.data.answer}}}.")
    wrong = SimpleNamespace(last_reply="So it is \\boxed{-77}.")
    (reward,) = task.hooks("reward")
    return {
        "right": await reward(trace=right),
        "wrong": await reward(trace=wrong),
        "valid": await task.validate(None),
    }


def main() -> None:
    """Load the taskset by the name a user gives to vf-eval."""
    sys.path.insert(0, sys.argv[1])
    taskset = taskset_class("midcourse-problems")(TasksetConfig(id="midcourse-problems"))
    tasks = list(taskset)
    loaded = {
        "ids": [task.data.id for task in tasks],
        "prompts": [task.data.prompt_text for task in tasks],
        "rewards": asyncio.run(rewards(tasks[0])),
    }
    sys.stdout.write("\n" + json.dumps(loaded) + "\n")


if __name__ == "__main__":
    main()
