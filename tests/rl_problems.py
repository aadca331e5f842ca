"""Problems for RL in tests."""

from __future__ import annotations

from midcourse.records import Condition, Gold
from midcourse.training.jobs import RlContext, RlProblem


def rl_problem(problem_id: str, text: str, gold: Gold) -> RlProblem:
    """Return a problem that RL begins from its text alone."""
    context = RlContext(condition=Condition.PROBLEM, message=text)
    return RlProblem(problem_id=problem_id, gold=gold, contexts=(context,))
