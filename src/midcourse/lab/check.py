"""Measures what the base model must be able to do, and must not.

The asymmetry the lab stands on: the base solves what it knows, fails on composed unknown notions
in every sample, yet names and fixes its own first error when it can compare with a reference, and
cannot without one. The world knows the truth, so every figure here is exact but for sampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.engines import resolve_model
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.problems import draw_problems
from midcourse.lab.truth import first_error
from midcourse.lab.world import Kind, Split, Story
from midcourse.metrics import wilson
from midcourse.progress import Failures
from midcourse.prompts import load_prompt_set
from midcourse.records import Problem, Proposal, ProposalOutcome, Rollout
from midcourse.stages.contexts import problem_contexts
from midcourse.stages.propose import Case, Proposer, propose, review_prompt
from midcourse.stages.sample import SampleSpec, sample
from midcourse.table import Table, share

_SAMPLING = SamplingConfig(max_tokens=140)
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
    stories: dict[str, Story] = {}
    known = draw_problems(Kind.KNOWN, Split.HELD_OUT, num_problems, seed, stories)
    composed = draw_problems(Kind.COMPOSED, Split.HELD_OUT, num_problems, seed, stories)
    errors = [first_error(r.text, stories[r.problem_id]) for r in _rollouts(engine, known, 8, seed)]
    rollouts = _rollouts(engine, composed, 64, seed)
    solved = {r.problem_id for r in rollouts if _is_right(r, stories)}
    by_id = {problem.problem_id: problem for problem in composed}
    wrong = [
        Case(by_id[r.problem_id], r, by_id[r.problem_id].reference_solution or "")
        for r in _wrong_rollouts(rollouts, stories)
    ]
    positions = Counter(first_error(c.rollout.text, stories[c.problem.problem_id]) for c in wrong)
    located, usable = _judge(engine, wrong, stories, seed, "given")
    _, bare = _judge(engine, wrong, stories, seed, "none")
    most_common = max(positions.values())
    is_spread = most_common <= 0.30 * len(wrong)
    rows = (
        _least("pass@1 without unknown notions", errors.count(None), len(errors), 0.90),
        _least("composed problems with pass@64 = 0", num_problems - len(solved), num_problems, 0.6),
        _least("names the true first error, with reference", located, len(wrong), 0.80),
        _least("usable, exactly correct intervention, with reference", usable, len(wrong), 0.75),
        _row("the same without reference", bare, len(wrong), "≤ half of that", 2 * bare <= usable),
        _row("most common first-error position", most_common, len(wrong), "≤ 30 %", is_spread),
    )
    note = (
        f"model {model}, {num_problems} held-out problems of each kind, seed {seed}; 95 % Wilson."
    )
    table = Table("Lab check", ("figure", "count", "share %", "required", ""), rows, note)
    return table, all(row[-1] == "met" for row in rows)


def _rollouts(
    engine: TransformersEngine, problems: Sequence[Problem], count: int, seed: int
) -> list[Rollout]:
    """Return rollouts by problem and index."""
    contexts = problem_contexts(problems, engine.renderer, load_prompt_set("lab"))
    spec = SampleSpec(
        num_rollouts=count,
        sampling=_SAMPLING.record(),
        budget="total",
        model="base",
        run_seed=seed,
        stage="check",
    )
    drawn = sample(contexts, spec, engine, (), Failures())
    return sorted(drawn, key=lambda r: (r.problem_id, r.index))


def _is_right(rollout: Rollout, stories: Mapping[str, Story]) -> bool:
    return f"\\boxed{{{stories[rollout.problem_id].answer}}}" in rollout.text


def _wrong_rollouts(rollouts: Sequence[Rollout], stories: Mapping[str, Story]) -> Iterator[Rollout]:
    """Yield up to two wrong rollouts of each problem, the first by index."""
    taken: Counter[str] = Counter()
    for rollout in rollouts:
        if not _is_right(rollout, stories) and taken[rollout.problem_id] < _PROPOSE.num_rollouts:
            taken[rollout.problem_id] += 1
            yield rollout


def _judge(
    engine: TransformersEngine,
    wrong: Sequence[Case],
    stories: Mapping[str, Story],
    seed: int,
    reference: Literal["given", "none"],
) -> tuple[int, int]:
    """Return how many proposals name the true first error, and how many are exactly right."""
    cases = wrong if reference == "given" else [replace(case, reference="") for case in wrong]
    config = _PROPOSE.model_copy(update={"reference": reference})
    with Grader() as grader:
        proposer = Proposer(
            engine=engine,
            renderer=engine.renderer,
            policy=engine.renderer,
            review=review_prompt(load_prompt_set("lab"), config),
            guided=None,
            grader=grader,
            config=config,
            name="base",
            run_seed=seed,
        )
        proposals = [p for _, ps in propose(cases, proposer, (), Failures()) for p in ps]
    rollouts = {case.rollout.rollout_id: case.rollout for case in wrong}
    located = [
        proposal
        for proposal in proposals
        if proposal.error_step is not None
        and proposal.error_step
        == first_error(rollouts[proposal.rollout_id].text, stories[proposal.problem_id])
    ]
    return len(located), sum(_is_exact(p, stories[p.problem_id]) for p in located)


def _is_exact(proposal: Proposal, story: Story) -> bool:
    """Whether the intervention is accepted and is the world's own step at that place."""
    step = proposal.error_step
    if proposal.outcome is not ProposalOutcome.ACCEPTED or step is None or step >= len(story.steps):
        return False
    return (proposal.intervention or "").strip() == story.steps[step]


def _least(what: str, num_correct: int, num_samples: int, least: float) -> tuple[str, ...]:
    met = num_correct >= least * num_samples
    return _row(what, num_correct, num_samples, f"≥ {100 * least:.0f} %", met)


def _row(what: str, num_correct: int, num_samples: int, bound: str, met: bool) -> tuple[str, ...]:
    found = share(wilson(num_correct, num_samples), 1)
    return (what, f"{num_correct}/{num_samples}", found, bound, "met" if met else "NOT MET")
