"""Measures what the base model must be able to do, and must not.

The asymmetry the lab stands on: the base solves what it knows, fails on composed unknown notions
in every sample, yet names and mends its own first error when it can compare with a reference, and
cannot without one. The world knows the truth, so every figure here is exact but for sampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.engines import resolve_model
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.problems import problem_from_story
from midcourse.lab.truth import first_error
from midcourse.lab.world import Kind, Split, Story, generate_stories
from midcourse.metrics import wilson
from midcourse.progress import Failures
from midcourse.prompts import load_prompt_set
from midcourse.records import Problem, Proposal, ProposalOutcome, Rollout
from midcourse.stages.contexts import problem_contexts
from midcourse.stages.propose import Case, Proposer, propose
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


@dataclass(frozen=True, slots=True)
class _Line:
    """One requirement: successes of trials, and the bound the share must meet."""

    what: str
    num_correct: int
    num_samples: int
    bound: str
    met: bool


def check_base(model: str, num_problems: int, seed: int) -> tuple[Table, bool]:
    """Sample, propose and compare with the truth; return the table and whether all is met."""
    engine = TransformersEngine(resolve_model(model), max_batch_rows=512)
    stories: dict[str, Story] = {}
    known = _problems(Kind.KNOWN, num_problems, seed, stories)
    composed = _problems(Kind.COMPOSED, num_problems, seed, stories)
    known_rollouts = _rollouts(engine, known, 8, seed)
    composed_rollouts = _rollouts(engine, composed, 64, seed)
    solved = sum(first_error(r.text, stories[r.problem_id]) is None for r in known_rollouts)
    right = {r.problem_id for r in composed_rollouts if _is_right(r, stories)}
    wrong = _wrong_rollouts(composed_rollouts, stories)
    positions = Counter(first_error(r.text, stories[r.problem_id]) for r in wrong)
    with_reference = _judge(engine, wrong, composed, stories, seed, "given")
    without = _judge(engine, wrong, composed, stories, seed, "none")
    located, usable = with_reference
    bare = without[1]
    total = len(wrong)
    lines = [
        _line("pass@1 without unknown notions", solved, len(known_rollouts), 0.90),
        _line("composed problems with pass@64 = 0", num_problems - len(right), num_problems, 0.60),
        _line("names the true first error, with reference", located, total, 0.80),
        _line("usable, exactly correct intervention, with reference", usable, total, 0.75),
        _Line("the same without reference", bare, total, "≤ half of that", 2 * bare <= usable),
        _at_most("most common first-error position", max(positions.values()), total, 0.30),
    ]
    return _table(lines, model, num_problems, seed), all(line.met for line in lines)


def _problems(kind: Kind, count: int, seed: int, stories: dict[str, Story]) -> list[Problem]:
    problems = []
    for story in islice(generate_stories(kind, Split.HELD_OUT, seed), count):
        problem = problem_from_story(story, kind, Split.HELD_OUT)
        stories[problem.problem_id] = story
        problems.append(problem)
    return problems


def _rollouts(
    engine: TransformersEngine, problems: Sequence[Problem], count: int, seed: int
) -> list[Rollout]:
    contexts = problem_contexts(problems, engine.renderer, load_prompt_set("lab"))
    spec = SampleSpec(
        num_rollouts=count,
        sampling=_SAMPLING.record(),
        budget="total",
        model="base",
        run_seed=seed,
        stage="check",
    )
    return sorted(sample(contexts, spec, engine, (), Failures()), key=lambda r: r.rollout_id)


def _is_right(rollout: Rollout, stories: dict[str, Story]) -> bool:
    return f"\\boxed{{{stories[rollout.problem_id].answer}}}" in rollout.text


def _wrong_rollouts(rollouts: Sequence[Rollout], stories: dict[str, Story]) -> list[Rollout]:
    """Return up to two wrong rollouts of each problem, the first by index."""
    taken: Counter[str] = Counter()
    wrong = []
    for rollout in sorted(rollouts, key=lambda r: (r.problem_id, r.index)):
        if not _is_right(rollout, stories) and taken[rollout.problem_id] < _PROPOSE.num_rollouts:
            taken[rollout.problem_id] += 1
            wrong.append(rollout)
    return wrong


def _judge(
    engine: TransformersEngine,
    wrong: Sequence[Rollout],
    problems: Sequence[Problem],
    stories: dict[str, Story],
    seed: int,
    reference: str,
) -> tuple[int, int]:
    """Return how many proposals name the true first error, and how many are exactly right."""
    by_id = {problem.problem_id: problem for problem in problems}
    config = _PROPOSE.model_copy(update={"reference": reference})
    shown = {p.problem_id: (p.reference_solution or "") for p in problems}
    cases = [
        Case(by_id[r.problem_id], r, shown[r.problem_id] if reference == "given" else "")
        for r in wrong
    ]
    rollouts = {rollout.rollout_id: rollout for rollout in wrong}
    with Grader() as grader:
        proposer = Proposer(
            engine=engine,
            renderer=engine.renderer,
            policy=engine.renderer,
            prompts=load_prompt_set("lab"),
            grader=grader,
            config=config,
            name="base",
            run_seed=seed,
        )
        proposals = [p for _, ps in propose(cases, proposer, (), Failures()) for p in ps]
    located = usable = 0
    for proposal in proposals:
        story, rollout = stories[proposal.problem_id], rollouts[proposal.rollout_id]
        is_located = _is_located(proposal, first_error(rollout.text, story))
        located += is_located
        usable += is_located and _is_exact(proposal, story)
    return located, usable


def _is_located(proposal: Proposal, truth: int | None) -> bool:
    return proposal.error_step is not None and proposal.error_step == truth


def _is_exact(proposal: Proposal, story: Story) -> bool:
    """Whether the intervention is accepted and is the world's own step at that place."""
    accepted = proposal.outcome is ProposalOutcome.ACCEPTED and proposal.error_step is not None
    if not accepted or proposal.error_step is None or proposal.error_step >= len(story.steps):
        return False
    return (proposal.intervention or "").strip() == story.steps[proposal.error_step]


def _line(what: str, num_correct: int, num_samples: int, least: float) -> _Line:
    met = num_correct >= least * num_samples
    return _Line(what, num_correct, num_samples, f"≥ {100 * least:.0f} %", met)


def _at_most(what: str, num_correct: int, num_samples: int, most: float) -> _Line:
    met = num_correct <= most * num_samples
    return _Line(what, num_correct, num_samples, f"≤ {100 * most:.0f} %", met)


def _table(lines: Sequence[_Line], model: str, num_problems: int, seed: int) -> Table:
    rows = tuple(
        (
            line.what,
            f"{line.num_correct}/{line.num_samples}",
            share(wilson(line.num_correct, line.num_samples), 1),
            line.bound,
            "met" if line.met else "NOT MET",
        )
        for line in lines
    )
    note = (
        f"model {model}, {num_problems} held-out problems of each kind, seed {seed}; 95 % Wilson."
    )
    return Table("Lab check", ("figure", "count", "share %", "required", ""), rows, note)
