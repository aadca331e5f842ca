"""A model asked in a world of the lab: rollouts, proposals, likelihoods, held to the truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.engines import resolve_model
from midcourse.engines.base import Engine, ScoreRequest, TokenScores
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.problems import draw_problems
from midcourse.lab.splits import Split
from midcourse.lab.truth import first_wrong
from midcourse.lab.worlds import Story, World
from midcourse.progress import Failures
from midcourse.prompts import PromptSet, load_prompt_set
from midcourse.records import Condition, Problem, Proposal, ProposalOutcome
from midcourse.stages.contexts import Context, opening_context, problem_contexts
from midcourse.stages.dialogue import Talk
from midcourse.stages.propose import Case, Proposer, propose, review_prompt
from midcourse.stages.sample import SampleSpec, sample
from midcourse.steps import BLANK_LINES, split_steps

#: More than any dialogue of the lab takes.
_MAX_TURNS = 16


class Told(NamedTuple):
    """A text in a model's turn, and what stands there before it."""

    problem: Problem
    given: str
    text: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A model in a world. Problems are held-out ones."""

    engine: TransformersEngine
    prompts: PromptSet
    world: World
    stories: dict[str, Story]
    """The truth by problem id, filled as problems are drawn."""
    seed: int
    sampling: SamplingConfig
    """Of rollouts."""

    @classmethod
    def of(cls, model: str, world: World, seed: int, sampling: SamplingConfig) -> Probe:
        """Open the model of a folder."""
        engine = TransformersEngine(resolve_model(model), max_batch_rows=512)
        return cls(engine, load_prompt_set("lab"), world, {}, seed, sampling)

    def sample(self, kind: str, num_problems: int, count: int) -> list[Case]:
        """Return rollouts of held-out problems, by problem and index."""
        return self.sample_of(self.problems(kind, num_problems), count)

    def problems(self, kind: str, count: int) -> list[Problem]:
        """Return held-out problems of a kind."""
        return draw_problems(kind, Split.HELD_OUT, count, self.seed, self.stories, self.world)

    def sample_of(self, problems: Sequence[Problem], count: int) -> list[Case]:
        """Return rollouts of given problems, by problem and index."""
        return self._sampled(
            problems, problem_contexts(problems, self.engine.renderer, self.prompts), count
        )

    def rewrites(self, cases: Sequence[Case]) -> list[Case]:
        """Return a rewrite of each case by the model itself, which sees the reference."""
        contexts = [
            opening_context(
                case.problem.problem_id,
                Condition.PROBLEM,
                self.prompts["reflect"].render(
                    problem=case.problem.text,
                    reference=str(case.problem.reference_solution),
                    attempt=BLANK_LINES.number(split_steps(case.rollout.text)),
                ),
                self.engine.renderer,
            )
            for case in cases
        ]
        return self._sampled([case.problem for case in cases], contexts, 1)

    def _sampled(
        self, problems: Sequence[Problem], contexts: Iterable[Context], count: int
    ) -> list[Case]:
        by_id = {problem.problem_id: problem for problem in problems}
        spec = SampleSpec(
            num_rollouts=count,
            sampling=self.sampling.record(),
            budget="total",
            model="base",
            run_seed=self.seed,
            stage="check",
        )
        engine: Engine = self.engine
        if self.world.environment:
            name, asked = self.world.environment, tuple(problems)
            talk = Talk(environment=name, max_turns=_MAX_TURNS, timeout_seconds=60, problems=asked)
            engine = talk.through(self.engine, self.engine.renderer)
        drawn = sample(contexts, spec, engine, (), Failures())
        rollouts = sorted(drawn, key=lambda r: (r.problem_id, r.index))
        return [Case(by_id[r.problem_id], r, "") for r in rollouts]

    def is_right(self, case: Case) -> bool:
        """Whether a rollout comes to the true answer."""
        return f"\\boxed{{{case.problem.answer}}}" in case.rollout.text

    def error(self, case: Case) -> int | None:
        """Return the true first error of a rollout."""
        story = self.stories[case.problem.problem_id]
        return first_wrong(self.world.steps.of(case.rollout), story)

    def propose(
        self, cases: Sequence[Case], config: ProposeConfig, reference: Literal["given", "none"]
    ) -> list[Proposal]:
        """Return the model's proposals for its rollouts."""
        config = config.model_copy(update={"reference": reference})
        if reference == "given":
            cases = [replace(c, reference=str(c.problem.reference_solution)) for c in cases]
        with Grader() as grader:
            proposer = Proposer(
                engine=self.engine,
                renderer=self.engine.renderer,
                policy=self.engine.renderer,
                review=review_prompt(self.prompts, config),
                guided=None,
                grader=grader,
                config=config,
                name="base",
                run_seed=self.seed,
            )
            return [p for _, ps in propose(cases, proposer, (), Failures()) for p in ps]

    def located(self, proposals: Iterable[Proposal], cases: Iterable[Case]) -> list[Proposal]:
        """Return the proposals that name the true first error."""
        errors = {case.rollout.rollout_id: self.error(case) for case in cases}
        return [p for p in proposals if p.error_step in {errors[p.rollout_id]} - {None}]

    def is_exact(self, proposal: Proposal) -> bool:
        """Whether the intervention is accepted and is right at the place that it names."""
        step, story = proposal.error_step, self.stories[proposal.problem_id]
        if proposal.outcome is not ProposalOutcome.ACCEPTED or step is None:
            return False
        return story.is_step(step, proposal.intervention or "")

    def scores(self, told: Sequence[Told]) -> list[TokenScores]:
        """Return the model's scores of texts in its turn, in any order; empty texts have none."""
        told = [text for text in told if text.text]
        renderer, requests = self.engine.renderer, list[ScoreRequest]()
        contexts = problem_contexts([t.problem for t in told], renderer, self.prompts)
        for index, (text, context) in enumerate(zip(told, contexts, strict=True)):
            given = (*context.prompt_ids, *renderer.reply_ids(text.given))
            ids = (*given, *renderer.reply_ids(text.text))
            requests.append(
                ScoreRequest(request_id=str(index), token_ids=ids, num_context=len(given))
            )
        return list(self.engine.score(requests))
