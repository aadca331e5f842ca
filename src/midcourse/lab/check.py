"""Measures what the base model must be able to do, and must not.

The asymmetry the lab stands on: the base solves what it knows, fails on composed unknown notions
in every sample, yet names and fixes its own first error when it can compare with a reference, and
cannot without one. The world knows the truth, so every figure here is exact but for sampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import filterfalse, groupby, islice
from typing import Literal

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.engines import resolve_model
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.counts.world import Kind
from midcourse.lab.problems import draw_problems
from midcourse.lab.splits import Split
from midcourse.lab.truth import first_error
from midcourse.lab.worlds import Story
from midcourse.metrics import wilson
from midcourse.progress import Failures
from midcourse.prompts import PromptSet, load_prompt_set
from midcourse.records import Proposal, ProposalOutcome
from midcourse.stages.contexts import problem_contexts
from midcourse.stages.propose import Case, Proposer, propose, review_prompt
from midcourse.stages.sample import SampleSpec, sample
from midcourse.table import Table, share

_PROPOSE = ProposeConfig(
    turns="single",
    num_rollouts=2,
    num_proposals=1,
    max_intervention_tokens=40,
    sampling=SamplingConfig(max_tokens=400),
)


def check_base(model: str, num_problems: int, seed: int) -> tuple[Table, bool]:
    """Sample, propose and compare with the truth; return the table and whether all is met."""
    engine = TransformersEngine(resolve_model(model), max_batch_rows=512)
    base = _Base(engine, load_prompt_set("lab"), {}, seed)
    known = base.sample(Kind.KNOWN, num_problems, 8)
    composed = base.sample(Kind.COMPOSED, num_problems, 64)
    solved = {case.problem.problem_id for case in composed if base.is_right(case)}
    by_problem = groupby(composed, lambda case: case.problem.problem_id)
    wrong = [
        case
        for _, cases in by_problem
        for case in islice(filterfalse(base.is_right, cases), _PROPOSE.num_rollouts)
    ]
    errors, total = [base.error(case) for case in known], len(wrong)
    most_common = max(Counter(map(base.error, wrong)).values(), default=0)
    is_spread = most_common <= 0.30 * total
    located, usable = base.judge(wrong, "given")
    _, bare = base.judge(wrong, "none")
    rows = (
        _least("pass@1 without unknown notions", errors.count(None), len(errors), 0.90),
        _least("composed problems with pass@64 = 0", num_problems - len(solved), num_problems, 0.6),
        _least("names the true first error, with reference", located, total, 0.80),
        _least("usable, exactly correct intervention, with reference", usable, total, 0.75),
        _row("the same without reference", bare, total, "≤ half of that", 2 * bare <= usable),
        _row("most common first-error position", most_common, total, "≤ 30 %", is_spread),
    )
    note = (
        f"model {model}, {num_problems} held-out problems of each kind, seed {seed}; 95 % Wilson."
    )
    table = Table("Lab check", ("figure", "count", "share %", "required", ""), rows, note)
    return table, all(row[-1] == "met" for row in rows)


@dataclass(frozen=True, slots=True)
class _Base:
    """The model that is measured, in the world."""

    engine: TransformersEngine
    prompts: PromptSet
    stories: dict[str, Story]
    """The truth by problem id, filled as problems are drawn."""
    seed: int

    def sample(self, kind: Kind, num_problems: int, count: int) -> list[Case]:
        """Return rollouts of held-out problems, by problem and index."""
        problems = draw_problems(kind, Split.HELD_OUT, num_problems, self.seed, self.stories)
        by_id = {problem.problem_id: problem for problem in problems}
        spec = SampleSpec(
            num_rollouts=count,
            sampling=SamplingConfig(max_tokens=140).record(),
            budget="total",
            model="base",
            run_seed=self.seed,
            stage="check",
        )
        contexts = problem_contexts(problems, self.engine.renderer, self.prompts)
        drawn = sample(contexts, spec, self.engine, (), Failures())
        rollouts = sorted(drawn, key=lambda r: (r.problem_id, r.index))
        return [Case(by_id[r.problem_id], r, "") for r in rollouts]

    def is_right(self, case: Case) -> bool:
        """Whether a rollout comes to the true answer."""
        return f"\\boxed{{{case.problem.answer}}}" in case.rollout.text

    def error(self, case: Case) -> int | None:
        """Return the true first error of a rollout."""
        return first_error(case.rollout.text, self.stories[case.problem.problem_id])

    def judge(self, cases: Sequence[Case], reference: Literal["given", "none"]) -> tuple[int, int]:
        """Return how many proposals name the true first error, and how many are exactly right."""
        config = _PROPOSE.model_copy(update={"reference": reference})
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
            proposals = [p for _, ps in propose(cases, proposer, (), Failures()) for p in ps]
        errors = {case.rollout.rollout_id: self.error(case) for case in cases}
        located = [p for p in proposals if p.error_step in {errors[p.rollout_id]} - {None}]
        return len(located), sum(map(self._is_exact, located))

    def _is_exact(self, proposal: Proposal) -> bool:
        """Whether the intervention is accepted and is the world's own step at that place."""
        step, steps = proposal.error_step, self.stories[proposal.problem_id].steps
        if proposal.outcome is not ProposalOutcome.ACCEPTED or step is None or step >= len(steps):
            return False
        return (proposal.intervention or "").strip() == steps[step]


def _least(what: str, num_correct: int, num_samples: int, least: float) -> tuple[str, ...]:
    met = num_correct >= least * num_samples
    return _row(what, num_correct, num_samples, f"≥ {100 * least:.0f} %", met)


def _row(what: str, num_correct: int, num_samples: int, bound: str, met: bool) -> tuple[str, ...]:
    found = share(wilson(num_correct, num_samples), 1)
    return (what, f"{num_correct}/{num_samples}", found, bound, "met" if met else "NOT MET")
