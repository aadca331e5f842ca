"""Problems that bring a verifier of their own: reasoning-gym's tasks.

Many of them have more than one right answer, so no gold answer can stand for the problem. Where
`Problem.gold` is a checker (a line that names it, then the task's entry as JSON), the grader hands
the boxed answer to that verifier, in a worker like all else that may hang. A full score is right,
anything less is wrong, and an error of the verifier is `ungraded`.

Some verifiers evaluate the answer as Python. What could be more than arithmetic is never handed
over: it is `ungraded`. That is a filter, not a sandbox.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from midcourse.grading.equivalence import Comparison

__all__ = ["checker_of", "is_checker", "own_answer", "prepare_verifier", "verify_answer"]

_PREFIX = "reasoning-gym\n"
#: Dunders, imports, strings within calls, and calls of anything but a mathematical function.
_MAY_RUN = re.compile(
    r"__|\b(?:import|lambda)\b|\([^()]*['\"]|(?<![A-Za-z_0-9.])(?!(?:a?(?:sin|cos|tan)h?|sec|csc|cot"
    r"|exp|ln|log|sqrt|abs|Abs|gcd|min|max|and|or|not)\s*\()[A-Za-z_][A-Za-z_0-9]+\s*\("
    r"|\.\s*[A-Za-z_][A-Za-z_0-9]*\s*\("
)


def checker_of(task: str, entry: Mapping[str, Any]) -> str:
    """Return the checker of one entry of a task; what JSON does not know becomes text or a list."""
    return _PREFIX + json.dumps({"task": task, "entry": dict(entry)}, default=_plainly)


def _plainly(value: Any) -> Any:
    return list(value) if isinstance(value, set | frozenset | tuple) else str(value)


def is_checker(gold: str) -> bool:
    """Whether a gold answer names a verifier and is no answer itself."""
    return gold.startswith(_PREFIX)


def own_answer(gold: str) -> str:
    """Return the answer that a checker's entry gives."""
    return str(json.loads(gold.removeprefix(_PREFIX))["entry"]["answer"])


def prepare_verifier() -> None:
    """Import the verifiers, which takes seconds. Raises ImportError without the package."""
    import reasoning_gym  # noqa: F401


def verify_answer(gold: str, answer: str) -> Comparison:
    """Ask the verifier. Raises whatever it raises, and ValueError for what may be code."""
    from reasoning_gym import get_score_answer_fn

    if _MAY_RUN.search(answer):
        raise ValueError("the answer may be code")
    checker = json.loads(gold.removeprefix(_PREFIX))
    score = get_score_answer_fn(checker["task"])(answer=answer, entry=checker["entry"])
    return Comparison.EQUAL if score >= 1 else Comparison.DIFFERENT
