"""Intervention Training (InT) for language models.

A model finds the first error in its own failed reasoning by comparing it with a reference
solution, writes a one-step intervention, the intervention is verified by continuing from it, the
model is fine-tuned on prefix + intervention, and outcome-reward RL then learns where it had no
signal. Start with ``midcourse run lab``; read `midcourse.records`, then `midcourse.stages`, to know
the method.

What this module names is the public surface (docs/python.md). The records are plain dataclasses;
functions are loaded when they are first asked for, so that importing this stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from midcourse.records import (
    Condition,
    EnvironmentTurn,
    FinishReason,
    Gold,
    Grade,
    GroupCount,
    Likelihood,
    Problem,
    ProblemStatus,
    Proposal,
    ProposalOutcome,
    Reference,
    ReferenceOutcome,
    RlSample,
    Role,
    Rollout,
    RowOutcome,
    RowSource,
    Sampling,
    SftRow,
    Solvability,
    Start,
    Turn,
    UngradedCause,
    Verdict,
)

if TYPE_CHECKING:
    from midcourse.checkers import AnswerChecker, grade_responses
    from midcourse.config import load_recipe
    from midcourse.data import load_problems
    from midcourse.environments import ToolEnvironment
    from midcourse.metrics import pass_at_k
    from midcourse.pipeline import FinishedRun, open_run, open_session
    from midcourse.pipeline.method import method
    from midcourse.prompts.parse import parse_proposal
    from midcourse.run import Stage, stage
    from midcourse.steps import join_steps, rule_named, split_steps

__version__ = "0.1.0"

__all__ = [
    "AnswerChecker",
    "Condition",
    "EnvironmentTurn",
    "FinishReason",
    "FinishedRun",
    "Gold",
    "Grade",
    "GroupCount",
    "Likelihood",
    "Problem",
    "ProblemStatus",
    "Proposal",
    "ProposalOutcome",
    "Reference",
    "ReferenceOutcome",
    "RlSample",
    "Role",
    "Rollout",
    "RowOutcome",
    "RowSource",
    "Sampling",
    "SftRow",
    "Solvability",
    "Stage",
    "Start",
    "ToolEnvironment",
    "Turn",
    "UngradedCause",
    "Verdict",
    "__version__",
    "grade_responses",
    "join_steps",
    "load_problems",
    "load_recipe",
    "method",
    "open_run",
    "open_session",
    "parse_proposal",
    "pass_at_k",
    "rule_named",
    "split_steps",
    "stage",
]

#: Where the functions live.
_LAZY = {
    "AnswerChecker": "midcourse.checkers",
    "FinishedRun": "midcourse.pipeline",
    "Stage": "midcourse.run",
    "ToolEnvironment": "midcourse.environments",
    "grade_responses": "midcourse.checkers",
    "join_steps": "midcourse.steps",
    "load_problems": "midcourse.data",
    "load_recipe": "midcourse.config",
    "method": "midcourse.pipeline.method",
    "open_run": "midcourse.pipeline",
    "open_session": "midcourse.pipeline",
    "parse_proposal": "midcourse.prompts.parse",
    "pass_at_k": "midcourse.metrics",
    "rule_named": "midcourse.steps",
    "split_steps": "midcourse.steps",
    "stage": "midcourse.run",
}

if not TYPE_CHECKING:  # a type checker would then accept any name

    def __getattr__(name: str) -> object:
        """Load a public function from the module it lives in."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
