"""From problems to the hard ones, with a reference solution and a hint for each (§5.1).

Read top to bottom, the properties are the flow: sample, grade, select, reference, and once more
sample, grade and select with hints, where the recipe asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from midcourse.config import ModelConfig
from midcourse.errors import EngineError
from midcourse.pipeline.workbench import Draw, Drawn, Graded, Searched, Workbench, identity
from midcourse.progress import Failures
from midcourse.records import (
    Grade,
    Problem,
    ProblemStatus,
    Proposal,
    Reference,
    Rollout,
    Solvability,
)
from midcourse.run import Artifact
from midcourse.stages.contexts import Context, problem_context
from midcourse.stages.hints import hint_of, hint_of_tokens
from midcourse.stages.reference import reference_contexts, references
from midcourse.stages.sample import duplicate_share
from midcourse.stages.select import select
from midcourse.store import StageStore


class Selection(Workbench):
    """sample, grade, select, reference."""

    @cached_property
    def train_rollouts(self) -> Drawn:
        """The base model's rollouts of the training problems, graded."""
        config = self.recipe.sample
        rollouts = self.sample(
            self.base, self.problems.train, "train", config.num_rollouts, config.sampling,
            config.rounds,
        )  # fmt: skip
        self._alarm_on_duplicates(rollouts)
        kind = Searched if config.rounds else Graded
        return kind(rollouts, self.grade(rollouts))

    def _alarm_on_duplicates(self, rollouts: Artifact) -> None:
        limit = self.recipe.sample.max_duplicate_share
        found = duplicate_share(rollouts.read(Rollout, without=("token_ids",)))
        if found.share > limit:
            raise EngineError(
                f"{found.num_identical} of {found.num_contexts} problems got one and the same text "
                f"for every sample (limit {limit:.0%}): the engine ignores seeds, and pass@k = 0 "
                "would be an illusion; raise sample.max_duplicate_share if this is meant"
            )

    @cached_property
    def statuses(self) -> Artifact:
        """Which training problems are hard."""
        graded, num_rollouts = self.train_rollouts, self.recipe.sample.num_rollouts
        return self.select(graded, self.problems.train, "train", num_rollouts)

    def select(
        self, graded: Drawn, problems: Sequence[Problem], label: str, num_rollouts: int
    ) -> Artifact:
        """Decide which of `problems` are hard, from `num_rollouts` rollouts each."""
        truncated_is_incorrect = self.recipe.select.truncated_is_incorrect
        settings = {
            "truncated_is_incorrect": truncated_is_incorrect, "num_rollouts": num_rollouts,
        }  # fmt: skip
        artifact = self.run.artifact("select", label, settings, [graded.grades])

        def produce(
            store: StageStore[ProblemStatus], failures: Failures
        ) -> Iterator[tuple[str, list[ProblemStatus]]]:
            statuses = select(
                problems,
                graded.grades.read(Grade),
                num_rollouts=num_rollouts,
                truncated_is_incorrect=truncated_is_incorrect,
            )
            for status in statuses:
                if status.problem_id not in store.done:
                    yield status.problem_id, [status]

        self.run.records(
            artifact, ProblemStatus, settings, [graded.grades], len(problems), produce,
            lambda s: s.status,
        )  # fmt: skip
        return artifact

    @cached_property
    def unsolved(self) -> list[Problem]:
        """The training problems with pass@k = 0, before references and hints are looked at."""
        return hard_of(self.problems.train, self.statuses)

    # References.

    @cached_property
    def references(self) -> Artifact:
        """Where the reference of each unsolved problem comes from; missing ones are written."""
        problems, write = self.unsolved, self.recipe.reference.write
        missing = [problem for problem in problems if not problem.reference_solution]
        asked = {"none": [], "missing": missing, "all": problems}[write]
        attempts = self._attempts_at_references(asked) if asked else None
        inputs = [self.statuses, *([attempts.rollouts, attempts.grades] if attempts else [])]
        settings = {"write": write, "problems": identity(problems)}
        artifact = self.run.artifact("reference", "train", settings, inputs)

        def produce(
            store: StageStore[Reference], failures: Failures
        ) -> Iterator[tuple[str, list[Reference]]]:
            rollouts = attempts.rollouts.read(Rollout, without=("token_ids",)) if attempts else ()
            grades = attempts.grades.read(Grade) if attempts else ()
            for item in references(problems, asked, rollouts, grades):
                if item.problem_id not in store.done:
                    yield item.problem_id, [item]

        self.run.records(
            artifact, Reference, settings, inputs, len(problems), produce, lambda r: r.outcome
        )
        return artifact

    def _attempts_at_references(self, problems: Sequence[Problem]) -> Graded:
        """Ask the writer for solutions of `problems`, and grade them."""
        config, prompt = self.recipe.reference, self.prompts["reference"]
        model = ModelConfig(path=config.model) if config.model else None
        writer = self.helper("reference", model, self.recipe.reference_engine)

        def contexts() -> Iterator[Context]:
            engine, renderer = writer.open()
            takes_ids = engine.capabilities.token_ids
            return reference_contexts(problems, self.prompts, renderer, takes_ids)

        rollouts = self.draw(
            Draw(
                label="reference",
                model_name=writer.name,
                engine=lambda: writer.open()[0],
                contexts=contexts,
                num_contexts=len(problems),
                num_rollouts=config.num_attempts,
                sampling=config.sampling,
                settings={
                    "helper": writer.settings, "problems": identity(problems),
                    "asks": [prompt.name, prompt.sha],
                },
            )
        )  # fmt: skip
        return Graded(rollouts, self.grade(rollouts))

    @cached_property
    def referenced(self) -> list[Problem]:
        """The unsolved problems with the references they have by now.

        Where references are written, a problem that its writer does not solve is left out.
        """
        if self.recipe.reference.write == "none":
            return self.unsolved
        texts = {r.problem_id: r.text for r in self.references.read(Reference) if r.text}
        return [
            replace(problem, reference_solution=texts[problem.problem_id])
            for problem in self.unsolved
            if problem.problem_id in texts
        ]

    # Hints.

    @cached_property
    def hinted_rollouts(self) -> Graded:
        """The base model's rollouts of the unsolved problems with a hint, graded."""
        problems = self.referenced
        rollouts = self.draw(
            Draw(
                label="train hint",
                model_name=self.base.name,
                engine=lambda: self.engine(self.base),
                contexts=lambda: (self.hinted_context(problem) for problem in problems),
                num_contexts=len(problems),
                num_rollouts=self.recipe.select.num_rollouts,
                sampling=self.recipe.sample.sampling,
                settings={"problems": identity(problems), "hints": self.hint_settings},
                inputs=[self.statuses],
            )
        )
        return Graded(rollouts, self.grade(rollouts))

    @cached_property
    def hinted_statuses(self) -> Artifact:
        """Which of the unsolved problems stay so with a hint: hint-guided pass@n = 0."""
        num_rollouts = self.recipe.select.num_rollouts
        return self.select(self.hinted_rollouts, self.referenced, "train hint", num_rollouts)

    @property
    def hint_settings(self) -> dict[str, object]:
        """What a hint depends on beyond the problem and the seed."""
        prompt = self.prompts["hint"]
        return {**self.recipe.hints.model_dump(), "prompt": [prompt.name, prompt.sha]}

    def hinted_context(self, problem: Problem, proposal: Proposal | None = None) -> Context:
        """Return the context of a problem with the hint that `hint` returns."""
        return problem_context(problem, self.renderer, self.prompts, self.hint(problem, proposal))

    def hint(self, problem: Problem, proposal: Proposal | None = None) -> str:
        """Return the hint of a problem, as long as ``hints.length`` says.

        ``intervention`` needs the proposal that the hint is compared with.
        """
        if proposal is None or self.recipe.hints.length == "third":
            return hint_of(problem, self.recipe.seed)
        num_tokens = len(self.renderer.encode((proposal.intervention or "").rstrip()))
        return hint_of_tokens(problem, num_tokens, self.renderer)

    @cached_property
    def hard_problems(self) -> list[Problem]:
        """The problems that interventions are for, in the order of the recipe's problems."""
        if self.recipe.select.condition == "hint":
            return hard_of(self.referenced, self.hinted_statuses)
        return self.referenced


def hard_of(problems: Sequence[Problem], statuses: Artifact) -> list[Problem]:
    """Return those of `problems` that `statuses` calls hard, in their order."""
    found = {s.problem_id: s.status for s in statuses.read(ProblemStatus)}
    return [p for p in problems if found.get(p.problem_id) is Solvability.HARD]
