"""A verifiers environment: a small installable package that holds the problems and the reward."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from midcourse.export.files import copy_file, template, write_jsonl
from midcourse.export.handover import Handover, Part

_PACKAGE = "midcourse_problems"


def write(handover: Handover, out: Path) -> list[Part]:
    """Write the package: ``pyproject.toml`` and the folder ``midcourse_problems``."""
    package = out / _PACKAGE
    package.mkdir()
    pyproject = template("verifiers_pyproject.toml").replace("{name}", handover.name)
    (out / "pyproject.toml").write_text(pyproject, "utf-8")
    copy_file("verifiers_taskset.py", package / "__init__.py")
    rows = [
        {
            "id": task.problem.problem_id,
            "prompt": task.user,
            "answer": task.problem.answer,
            "gold": asdict(task.problem.gold),
        }
        for task in handover.tasks
    ]
    write_jsonl(package / "problems.jsonl", rows)
    return [
        Part(path="pyproject.toml", what="the package midcourse-problems"),
        Part(path=f"{_PACKAGE}/__init__.py", what="the taskset, with midcourse's grader"),
        Part(path=f"{_PACKAGE}/problems.jsonl", what=f"{len(rows)} prompts with golds"),
    ]
