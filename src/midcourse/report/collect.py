"""Reads a finished pipeline's artifacts into what the report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from midcourse.metrics import Count, StoppedCount, group_shares
from midcourse.pipeline import Drawn, Graded, Pipeline, Searched
from midcourse.records import (
    Condition,
    Grade,
    GroupCount,
    Likelihood,
    Problem,
    ProblemStatus,
    Proposal,
    Reference,
    Rollout,
    SftRow,
    Verdict,
)
from midcourse.run import Artifact
from midcourse.training.rewards import read_group_counts

#: Continuations shown per trace; the rest is counted.
_SHOWN_CONTINUATIONS = 6
#: Traces in the page; tables count all.
_SHOWN_TRACES = 500


@dataclass(frozen=True, slots=True)
class Trace:
    """One proposal with everything around it, as the viewer shows it."""

    problem: Problem
    rollout: Rollout
    proposal: Proposal
    continuations: list[tuple[str, str]]
    """(text, verdict) of the first few."""
    verdicts: dict[str, int]
    row_tokens: list[tuple[str, bool]]
    """(token text, trained?) of the row's last tokens; empty without a row."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the report shows, already counted."""

    name: str
    seed: int
    funnel: dict[str, dict[str, int]]
    conditions: dict[Condition, list[Count]]
    searches: dict[Condition, list[StoppedCount]]
    """Conditions that were drawn until the first correct: coverage only."""
    evaluations: dict[str, dict[str, list[Count]]]
    arms: dict[str, list[GroupCount]]
    likelihoods: list[Likelihood]
    model_labels: dict[str, str]
    error_steps: list[int]
    ks: tuple[int, ...]
    traces: list[Trace]


def collect(pipeline: Pipeline) -> ReportData:
    """Read every artifact of a pipeline, running what is missing."""
    evaluations: dict[str, dict[str, list[Count]]] = {}
    for (label, eval_set), graded in pipeline.evaluations.items():
        problems = pipeline.problems.evaluation[eval_set]
        evaluations.setdefault(eval_set, {})[label] = count_by_problem(graded, problems)
    arms = {
        label: read_group_counts(model.made_by[0].path / "groups.jsonl")
        for label, model in pipeline.models.items()
        if "RL" in label
    }
    hard = pipeline.hard_problems
    verified = pipeline.verified.items()
    return ReportData(
        name=pipeline.recipe.name,
        seed=pipeline.recipe.seed,
        funnel={**funnel_counts(pipeline), **_rl_counts(arms)},
        conditions={c: count_by_problem(g, hard) for c, g in verified if isinstance(g, Graded)},
        searches={c: stopped_by_problem(g, hard) for c, g in verified if isinstance(g, Searched)},
        evaluations=evaluations,
        arms=arms,
        likelihoods=[item for art in pipeline.likelihoods for item in art.read(Likelihood)],
        model_labels={model.name: label for label, model in pipeline.models.items()},
        error_steps=[p.error_step for p in pipeline.candidates if p.error_step is not None],
        ks=pipeline.recipe.evaluate.ks,
        traces=list(_traces(pipeline)),
    )


def count_by_problem(graded: Graded, problems: Sequence[Problem]) -> list[Count]:
    """Return one count per problem, with zero samples where there is no graded rollout.

    Ungraded rollouts are in no count.
    """
    if not isinstance(graded, Graded):
        raise TypeError("a search stops at what it looks for: it has no unbiased counts")
    samples, correct = _tally(graded)
    return [Count(samples[p.problem_id], correct[p.problem_id]) for p in problems]


def stopped_by_problem(found: Searched, problems: Sequence[Problem]) -> list[StoppedCount]:
    """Return for each problem how many rollouts a search drew and whether one was correct."""
    samples, correct = _tally(found)
    return [StoppedCount(samples[p.problem_id], correct[p.problem_id] > 0) for p in problems]


def _tally(drawn: Drawn) -> tuple[Counter[str], Counter[str]]:
    """Count graded and correct rollouts by problem."""
    samples: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for grade in drawn.grades.read(Grade):
        if grade.verdict is not Verdict.UNGRADED:
            samples[grade.problem_id] += 1
            correct[grade.problem_id] += grade.verdict is Verdict.CORRECT
    return samples, correct


def funnel_counts(pipeline: Pipeline) -> dict[str, dict[str, int]]:
    """Count every stage up to the rows by outcome; totals come from the manifests."""
    graded = pipeline.train_rollouts
    verified = pipeline.verified[Condition.PREFIX_INTERVENTION]
    finishes: Counter[str] = Counter(
        str(r.finish_reason) for r in graded.rollouts.read(Rollout, without=("token_ids",))
    )
    proposals = Counter(
        (str(p.outcome), bool(p.leaks_substring))
        for p in pipeline.proposals.read(Proposal, without=("turns",))
    )
    outcomes, leaks = Counter[str](), Counter[bool]()
    for (outcome, leak), count in proposals.items():
        outcomes[outcome] += count
        leaks[leak] += count
    stages = {
        "rollouts": dict(finishes),
        "grades": _count(str(g.verdict) for g in graded.grades.read(Grade)),
        "problems": _count(str(s.status) for s in pipeline.statuses.read(ProblemStatus)),
        "proposals": dict(outcomes.most_common()),
        "of them, substring rule": {"leak": leaks[True], "do not": leaks[False]},
        "continuations": _count(str(g.verdict) for g in verified.grades.read(Grade)),
        "candidates for a row": _row_outcomes(pipeline.step_rows),
    }
    artifacts = {
        "rollouts": graded.rollouts,
        "grades": graded.grades,
        "problems": pipeline.statuses,
        "proposals": pipeline.proposals,
        "continuations": verified.grades,
        "candidates for a row": pipeline.step_rows,
    }
    stages |= _of_options(pipeline, artifacts)
    for stage, artifact in artifacts.items():
        stages[stage]["total"] = int(artifact.manifest["num_records"])
    return stages


def _of_options(pipeline: Pipeline, artifacts: dict[str, Artifact]) -> dict[str, dict[str, int]]:
    """Count the stages that only some recipes have, and add them to `artifacts`."""
    recipe, stages = pipeline.recipe, dict[str, dict[str, int]]()
    if recipe.reference.write != "none":
        artifacts["references"] = pipeline.references
        found = pipeline.references.read(Reference)
        stages["references"] = _count(str(reference.outcome) for reference in found)
    if recipe.select.condition == "hint":
        artifacts["problems with a hint"] = pipeline.hinted_statuses
        statuses = pipeline.hinted_statuses.read(ProblemStatus)
        stages["problems with a hint"] = _count(str(s.status) for s in statuses)
    if recipe.verify.shift:
        artifacts["shifted"] = pipeline.proposals_at(recipe.verify.shift)
        moved = artifacts["shifted"].read(Proposal, without=("turns",))
        stages["shifted"] = _count(str(proposal.outcome) for proposal in moved)
    if recipe.build_sft.is_baseline:
        name = f"rows of source {recipe.build_sft.source}"
        artifacts[name], stages[name] = pipeline.rows, _row_outcomes(pipeline.rows)
    return stages


def _row_outcomes(rows: Artifact) -> dict[str, int]:
    return _count(str(r.outcome) for r in rows.read(SftRow, without=("input_ids", "labels")))


def _count(outcomes: Iterable[str]) -> dict[str, int]:
    return dict(Counter(outcomes).most_common())


def _rl_counts(arms: dict[str, list[GroupCount]]) -> dict[str, dict[str, int]]:
    counts = {}
    for arm, groups in arms.items():
        graded = [Count(g.num_correct + g.num_incorrect, g.num_correct) for g in groups]
        shares, total = group_shares(graded), len(groups)
        of = shares.num_groups
        counts[f"groups of {arm}"] = {
            "none correct": round(shares.none_correct * of) if of else 0,
            "mixed": round(shares.mixed * of) if of else 0,
            "all correct": round(shares.all_correct * of) if of else 0,
            "ungraded": total - of,
            "total": total,
        }
    return counts


def _traces(pipeline: Pipeline) -> Iterable[Trace]:
    """Yield a trace per proposal, accepted or not; of very many, the first ones on disk."""
    problems = pipeline.problems_by_id
    proposals = list(islice(pipeline.proposals.read(Proposal), _SHOWN_TRACES))
    shown = {proposal.proposal_id for proposal in proposals}
    wanted = {proposal.rollout_id for proposal in proposals}
    rollouts = {
        r.rollout_id: r
        for r in pipeline.train_rollouts.rollouts.read(Rollout)
        if r.rollout_id in wanted
    }
    continuations = _continuations(pipeline.verified[Condition.PREFIX_INTERVENTION], shown)
    rows = {r.proposal_id: r for r in pipeline.step_rows.read(SftRow) if r.proposal_id in shown}
    for proposal in proposals:
        texts, verdicts = continuations.get(proposal.proposal_id, ([], Counter()))
        row = rows.get(proposal.proposal_id)
        yield Trace(
            problem=problems[proposal.problem_id],
            rollout=rollouts[proposal.rollout_id],
            proposal=proposal,
            continuations=texts,
            verdicts=dict(verdicts),
            row_tokens=_row_tokens(pipeline, row) if row else [],
        )


def _continuations(
    graded: Drawn, proposal_ids: Collection[str]
) -> dict[str, tuple[list[tuple[str, str]], Counter[str]]]:
    """Return the first few continuations of each proposal, and all its verdicts counted."""
    wanted = (g for g in graded.grades.read(Grade) if g.parent_id in proposal_ids)
    verdicts = {g.rollout_id: str(g.verdict) for g in wanted}
    found: dict[str, tuple[list[tuple[str, str]], Counter[str]]] = {}
    for rollout in graded.rollouts.read(Rollout, without=("token_ids",)):
        if rollout.rollout_id not in verdicts:
            continue
        shown, counts = found.setdefault(str(rollout.parent_id), ([], Counter()))
        verdict = verdicts[rollout.rollout_id]
        counts[verdict] += 1
        if len(shown) < _SHOWN_CONTINUATIONS:
            shown.append((rollout.text, verdict))
    return found


def _row_tokens(pipeline: Pipeline, row: SftRow) -> list[tuple[str, bool]]:
    """Return the last 200 tokens of a row with whether each is trained."""
    pairs = list(zip(row.input_ids, row.labels, strict=True))[-200:]
    return [(pipeline.renderer.tokenizer.decode([token]), label >= 0) for token, label in pairs]
