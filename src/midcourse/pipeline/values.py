"""What stages are given in addition to numbers: models, problems, texts, and who is hard.

Each is a value with an identity, so that it can stand in a stage's settings. A view of problems
holds only the fields that a stage may read; the others are blank, so that what names the stage is
all that it can use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from midcourse.config import TEMPLATE_DATE, EngineConfig, ModelConfig
from midcourse.data.parts import subset_ids
from midcourse.engines import engine_identity, told_templates
from midcourse.records import (
    Grade,
    Problem,
    ProblemStatus,
    Proposal,
    Reference,
    Role,
    Rollout,
    Solvability,
    content_id,
)
from midcourse.run import Reader, Stage, Training
from midcourse.stages.dialogue import Talk
from midcourse.stages.propose import first_accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to sample from or to score with, and how, e.g. the base with transformers."""

    name: str
    """Its identity in records: ``base:<hash>``, ``sft:<key>``, ``rl:<key>@<step>``, a helper's."""
    label: str
    """What people call it: ``base``, ``patched``, ``SFT on references``, ``patched + RL``."""
    source: ModelConfig
    """Where its weights come from; of a trained model where its training began."""
    engine: EngineConfig
    role: Role | None = None
    """Which part of the comparison it plays; none for a helper."""
    trained: Training[Any] | None = None
    folder: str = ""
    """Of a trained model, within its training: ``final`` or a kept checkpoint."""

    def identity(self) -> object:
        """Return its name, and what else decides what it samples."""
        engine = engine_identity(self.engine)
        named = {"name": self.name, "dtype": self.source.dtype, "engine": engine}
        date = self.source.template_date
        # What a chat template is told writes other prompts.
        told = {} if date == TEMPLATE_DATE else {"template_date": str(date)}
        return named | told | told_templates(self.source)


@dataclass(frozen=True, slots=True)
class ProblemSets:
    """The problems of a run: to train on, and to evaluate on by name of the set."""

    train: list[Problem]
    evaluation: dict[str, list[Problem]]


_BLANK: dict[str, Any] = {
    field.name: None if field.name == "reference_solution" else ""
    for field in fields(Problem)
    if field.name != "problem_id"
}


@dataclass(frozen=True)
class Problems:
    """Problems as one stage may see them; `view` makes them."""

    items: tuple[Problem, ...]

    def identity(self) -> object:
        """Return their number and a hash of what they hold."""
        return self._identity

    @cached_property
    def _identity(self) -> object:
        content = [
            [p.problem_id, *(getattr(p, name) for name in sorted(_BLANK))] for p in self.items
        ]
        return {"number": len(content), "hash": content_id(content)}

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        """The problems by id."""
        return {problem.problem_id: problem for problem in self.items}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogues:
    """What answers the model's turns, for one set of problems."""

    environment: str
    """Its name in the recipe."""
    version: str
    max_turns: int
    timeout_seconds: float
    problems: Problems
    """As the environment sees them."""

    def identity(self) -> object:
        """Return what decides what is said; how long one waits for it does not."""
        return {
            "environment": self.environment,
            "version": self.version,
            "max_turns": self.max_turns,
            "problems": self.problems.identity(),
        }

    @property
    def talk(self) -> Talk:
        """The same as plain data."""
        return Talk(
            environment=self.environment,
            max_turns=self.max_turns,
            timeout_seconds=self.timeout_seconds,
            problems=self.problems.items,
        )


def view(problems: Iterable[Problem], *names: str) -> Problems:
    """Return `problems` with their ids and these fields alone."""
    blank = {name: value for name, value in _BLANK.items() if name not in names}
    return Problems(tuple(replace(problem, **blank) for problem in problems))


@dataclass(frozen=True)
class Texts:
    """Texts by id, in order, known by their hash, e.g. what the user says for each problem."""

    items: Mapping[str, str]

    def identity(self) -> object:
        """Return their number and a hash of them."""
        return self._identity

    @cached_property
    def _identity(self) -> object:
        return {"number": len(self.items), "hash": content_id(list(self.items.items()))}


@dataclass(frozen=True, slots=True)
class Graded:
    """Rollouts and their grades, every one that was asked for: pass@k may be estimated."""

    rollouts: Stage[Rollout, Any]
    grades: Stage[Grade, Any]


@dataclass(frozen=True, slots=True)
class Searched:
    """Rollouts drawn until the first correct one: tells who is solved, never how often."""

    rollouts: Stage[Rollout, Any]
    grades: Stage[Grade, Any]


Drawn = Graded | Searched


@dataclass(frozen=True, slots=True)
class Subset:
    """A choice of so many problems, by seed and problem id alone."""

    size: int
    seed: int

    @classmethod
    def of(cls, size: int | None, seed: int) -> Subset | None:
        """Return the choice of `size` problems; None where all are taken."""
        return cls(size, seed) if size else None

    def choose(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the chosen ones, in their order."""
        ids = subset_ids((problem.problem_id for problem in problems), self.size, self.seed)
        return [problem for problem in problems if problem.problem_id in ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerSource:
    """Other numbers of rollouts for problems of some sources (§5.1: 128 for Omni-MATH)."""

    numbers: Mapping[str, int]
    """By source."""
    problems: Problems
    """With their sources."""

    def by_problem(self) -> dict[str, int]:
        """Return the numbers by problem id, of problems that have another one."""
        sources = ((p.problem_id, p.source) for p in self.problems.items)
        return {name: self.numbers[source] for name, source in sources if source in self.numbers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which problems interventions are for, with the references that they have by then."""

    problems: Problems
    """The training problems, as much of them as may be seen."""
    statuses: Stage[ProblemStatus, Any]
    references: Stage[Reference, Any] | None = None
    """Where references are written: a problem that its writer does not solve is left out."""
    hinted: Stage[ProblemStatus, Any] | None = None
    """Where only those count that hints do not solve."""
    subset: Subset | None = None
    """Of the hard problems, only these; references and hints are asked for no others."""

    def read(self, reader: Reader) -> list[Problem]:
        """Return the problems, in the order of the recipe's."""
        hard = hard_ids(reader, self.statuses)
        chosen = [problem for problem in self.problems.items if problem.problem_id in hard]
        if self.subset is not None:
            chosen = self.subset.choose(chosen)
        if self.references is not None:
            texts = {r.problem_id: r.text for r in reader.read(self.references) if r.text}
            chosen = [
                replace(problem, reference_solution=texts[problem.problem_id])
                for problem in chosen
                if problem.problem_id in texts
            ]
        if self.hinted is not None:
            still = hard_ids(reader, self.hinted)
            chosen = [problem for problem in chosen if problem.problem_id in still]
        return chosen


def hard_ids(reader: Reader, statuses: Stage[ProblemStatus, Any]) -> set[str]:
    """Return the ids of the problems that a *select* calls hard."""
    return {s.problem_id for s in reader.read(statuses) if s.status is Solvability.HARD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What is verified: the first accepted proposal of each rollout that was asked about."""

    proposals: Stage[Proposal, Any]
    hard: Selection | None = None
    """The problems that count; all by default."""
    after_error: bool = False
    """Whether Box 2's recovery steps count."""

    def read(self, reader: Reader) -> list[Proposal]:
        """Return the candidates without their turns, ordered by rollout id."""
        made = first_accepted(reader.read(self.proposals, ("turns",)), self.after_error)
        if self.hard is None:
            return made
        hard = {problem.problem_id for problem in self.hard.read(reader)}
        return [proposal for proposal in made if proposal.problem_id in hard]
