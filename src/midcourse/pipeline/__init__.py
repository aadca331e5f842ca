"""The method, whole: `method` composes the stages, a `Session` completes them.

`values` are what stages are given in addition to numbers (models, problems, who is hard),
`contexts` what is sampled from, `stages` and `models` the steps themselves; `method` is the recipe
that puts them in order.
"""

from __future__ import annotations

from midcourse.pipeline.finished import FinishedRun, open_run
from midcourse.pipeline.method import Method, method
from midcourse.pipeline.session import Session, Setup, open_session
from midcourse.pipeline.values import Drawn, Graded, Model, ProblemSets, Searched

__all__ = [
    "Drawn",
    "FinishedRun",
    "Graded",
    "Method",
    "Model",
    "ProblemSets",
    "Searched",
    "Session",
    "Setup",
    "method",
    "open_run",
    "open_session",
]
