"""A verifiers environment: a small installable package that holds the problems and the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from midcourse.export.files import copy_file, write_jsonl
from midcourse.export.handover import Handover, Part

_PACKAGE = "midcourse_problems"

_PYPROJECT = """\
[project]
name = "midcourse-problems"
version = "0.1.0"
description = "{name}: problems of a midcourse run, graded by midcourse"
requires-python = ">=3.11"
dependencies = ["midcourse", "verifiers>=0.4"]

[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = ["midcourse_problems"]

[tool.setuptools.package-data]
midcourse_problems = ["problems.jsonl"]
"""

_USAGE = """
```sh
pip install .                              # next to midcourse
vf-validate midcourse-problems             # every gold answer must grade itself
vf-eval midcourse-problems -n 8 -m MODEL
```

An answer that the grader cannot judge is an error of that rollout, never a reward of 0.
"""


def write(handover: Handover, out: Path) -> tuple[Sequence[Part], str]:
    """Write the package: ``pyproject.toml`` and the folder ``midcourse_problems``."""
    package = out / _PACKAGE
    package.mkdir()
    (out / "pyproject.toml").write_text(_PYPROJECT.format(name=handover.name), "utf-8")
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
    parts = [
        Part(path="pyproject.toml", what="the package midcourse-problems"),
        Part(path=f"{_PACKAGE}/__init__.py", what="the taskset, with midcourse's grader"),
        Part(path=f"{_PACKAGE}/problems.jsonl", what=f"{len(rows)} prompts with golds"),
    ]
    return parts, _USAGE
