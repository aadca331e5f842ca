"""The problems of a run, with what was decided about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from midcourse.records import Problem, ProblemStatus, Reference, Solvability
from midcourse.store.stage import read_records
from midcourse.viewer.data import ViewedProblem
from midcourse.viewer.files import RunFiles


@dataclass(eq=False)
class ProblemList:
    """Problems by place in the page. One that a run does not hold has a place, and no text."""

    _problems: dict[str, Problem] = field(default_factory=dict)
    _references: dict[str, str] = field(default_factory=dict)
    _statuses: dict[str, ProblemStatus] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, files: RunFiles) -> ProblemList:
        """Read the problems of a run directory: training problems first."""
        found = cls()
        paths = [*files.directory.glob("problems/**/*.parquet")]
        for path in sorted(paths, key=lambda path: (path.stem != "train", path)):
            for problem in files.tolerant(read_records([path], Problem)):
                found._problems.setdefault(problem.problem_id, problem)
        for step in files.named("select"):
            for status in files.records(step, ProblemStatus):
                found._statuses.setdefault(status.problem_id, status)
        for step in files.named("reference"):
            for written in files.records(step, Reference):
                if written.text:
                    found._references[written.problem_id] = written.text
        found._places = {problem_id: place for place, problem_id in enumerate(found._problems)}
        return found

    def place(self, problem_id: str) -> int:
        """Return a problem's place in the page."""
        return self._places.setdefault(problem_id, len(self._places))

    def is_hard(self, problem_id: str) -> bool:
        """Whether no rollout was correct when problems were selected."""
        status = self._statuses.get(problem_id)
        return status is not None and status.status is Solvability.HARD

    def viewed(self) -> Sequence[ViewedProblem]:
        """Return the problems as the page shows them, each at its place."""
        return [self._viewed(problem_id) for problem_id in self._places]

    def _viewed(self, problem_id: str) -> ViewedProblem:
        problem, status = self._problems.get(problem_id), self._statuses.get(problem_id)
        given = (problem.reference_solution or "") if problem else ""
        return ViewedProblem(
            problem_id=problem_id,
            text=problem.text if problem else "",
            answer=problem.answer if problem else "",
            reference=self._references.get(problem_id, given),
            source=problem.source if problem else "",
            split=problem.split if problem else "",
            status=str(status.status) if status else "",
            num_correct=status.num_correct if status else 0,
            num_rollouts=status.num_rollouts if status else 0,
        )
