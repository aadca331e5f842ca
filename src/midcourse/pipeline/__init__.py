"""The method, whole: which stage feeds which, and what each is asked for.

A `Pipeline` is built in the order of the flow, a file for each stretch, each standing on the one
before: `workbench` (what a run works with; sample and grade), `interventions` (select, propose,
verify), `training` (rows and models), `evaluation`. Every property returns what it left on disk
and first makes whatever it needs; `midcourse.run` decides what is already there.
"""

from __future__ import annotations

from midcourse.pipeline.evaluation import Evaluation
from midcourse.pipeline.workbench import Drawn, Graded, Model, ProblemSets, Searched

__all__ = ["Drawn", "Graded", "Model", "Pipeline", "ProblemSets", "Searched"]


class Pipeline(Evaluation):
    """One run of the method over one recipe. Close it, or use it as a context manager."""

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
