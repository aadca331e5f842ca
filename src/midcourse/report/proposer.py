"""What a proposer finds on held-out problems before and after it was trained, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

from midcourse.config import HELD_OUT_SET, Recipe
from midcourse.metrics import Count, mean
from midcourse.pipeline import Session
from midcourse.pipeline.proposer import SHOWN, Answers, Proposers
from midcourse.records import ProposalOutcome
from midcourse.report.collect import tally
from midcourse.report.estimates import Clusters, each, estimate, flat, grouped, only
from midcourse.run import Reader
from midcourse.steps import rule_named
from midcourse.store.files import make_folder, write_json_atomic
from midcourse.table import Table, share

_COLUMNS = (
    "proposer", "reference", "asked about", "first error named %", "accepted %", "succeeded %",
    "continuations right %",
)  # fmt: skip
_NOTE = """Wrong rollouts of the base on {eval_set} problems, each asked about once. Shares are of \
all of them: succeeded is an accepted intervention with a right continuation; without an accepted \
one no continuation is right. The first error is known in the lab alone. 95 %: bootstrap over \
problems; Wilson."""


def compare_answers(session: Session, found: Proposers) -> list[Table]:
    """Ask before and after, with the reference and without, on the held-out problems.

    The table is also written to ``report/proposer.json``; there is none without such problems.
    """
    if HELD_OUT_SET not in session.setup.problems.evaluation:
        session.run.reporter.say("train proposer: no held-out problems, so nothing is measured")
        return []
    answered: dict[tuple[str, str], Clusters[Judged]] = {}
    for model, name in ((found.before, "as it was"), (found.trained, "trained")):
        for reference, shown in SHOWN.items():
            answers = found.answers(model, reference, HELD_OUT_SET)
            session.complete(*answers.steps)
            answered[name, shown] = judged(session.run, answers, session.recipe)
    table = answers_table(answered, HELD_OUT_SET.replace("_", "-"))
    folder = session.run.directory / "report"
    make_folder(folder)
    write_json_atomic(folder / "proposer.json", asdict(table))
    return [table]


class Judged(NamedTuple):
    """What came of one question, e.g. the first error named, 5 of 32 continuations right."""

    is_located: bool | None
    """Whether the true first error was named; none where nobody knows it."""
    is_accepted: bool
    num_samples: int
    num_correct: int

    @property
    def is_success(self) -> bool:
        """Whether a continuation is right."""
        return self.num_correct > 0

    @property
    def share_right(self) -> float:
        """Share of right continuations; 0 where there is no intervention to continue from."""
        return self.num_correct / self.num_samples if self.num_samples else 0.0


def judged(reader: Reader, answers: Answers, recipe: Recipe) -> Clusters[Judged]:
    """Return what came of each question, by problem; the stages are complete."""
    counts = tally(reader, answers.verified, lambda grade: str(grade.parent_id))
    errors = _first_errors(reader, answers, recipe)
    found = []
    for proposal in sorted(reader.read(answers.proposals, ("turns",)), key=lambda p: p.rollout_id):
        truth = errors.get(proposal.rollout_id)
        count = counts.get(proposal.proposal_id, Count(0, 0))
        made = Judged(
            is_located=None if truth is None else proposal.error_step == truth,
            is_accepted=proposal.outcome is ProposalOutcome.ACCEPTED,
            num_samples=count.num_samples,
            num_correct=count.num_correct,
        )
        found.append((proposal.problem_id, made))
    return grouped(found)


def _first_errors(reader: Reader, answers: Answers, recipe: Recipe) -> dict[str, int]:
    """Return the true first error of each rollout, by its id, where the lab knows it."""
    if recipe.problems.kind != "lab":
        return {}
    from midcourse.lab.problems import lab_problems
    from midcourse.lab.truth import first_wrong

    stories = lab_problems(recipe.problems, recipe.seed).stories
    rollouts, rule = reader.read(answers.cases, ("token_ids",)), rule_named(recipe.steps.rule)
    told = ((r.rollout_id, first_wrong(rule.of(r), stories[r.problem_id])) for r in rollouts)
    return {rollout_id: step for rollout_id, step in told if step is not None}


def answers_table(found: Mapping[tuple[str, str], Clusters[Judged]], eval_set: str) -> Table:
    """Show what came of the questions, by who was asked and how the reference was shown."""
    rows = []
    for (name, shown), of in found.items():
        known = only(of, lambda one: one.is_located is not None)
        shares = (
            each(known, lambda one: float(bool(one.is_located))),
            each(of, lambda one: float(one.is_accepted)),
            each(of, lambda one: float(one.is_success)),
            each(of, lambda one: one.share_right),
        )
        cells = (share(estimate(values, mean)) if values else "–" for values in shares)
        rows.append((name, shown, str(len(flat(of))), *cells))
    title = "What the proposer finds, before and after"
    return Table(title, _COLUMNS, tuple(rows), _NOTE.format(eval_set=eval_set))
