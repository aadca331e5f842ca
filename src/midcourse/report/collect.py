"""Reads a finished run's artifacts into what the report shows. Nothing is run or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.metrics import Count, StoppedCount, count_of, group_shares
from midcourse.pipeline import Drawn, Graded, Method, Searched
from midcourse.pipeline.contexts import verified_ids
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import (
    Condition,
    Grade,
    GroupCount,
    Likelihood,
    Problem,
    ProposalOutcome,
    RowOutcome,
    Verdict,
)
from midcourse.report.rl import RlCourse, read_course, read_log
from midcourse.report.tables import GuidedCount
from midcourse.run import Reader, Run, Stage, Step
from midcourse.stages.propose import begins_with_solution

_LEAKS = "of them, substring rule"


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the report shows, already counted."""

    name: str
    seed: int
    funnel: dict[str, dict[str, int]]
    conditions: dict[Condition, list[Count]]
    guided: dict[Verdict, GuidedCount]
    """By what the grader says of the guided solution; empty where proposals began with none."""
    searches: dict[Condition, list[StoppedCount]]
    """Conditions that were drawn until the first correct: coverage only."""
    evaluations: dict[str, dict[str, list[Count]]]
    arms: dict[str, list[GroupCount]]
    courses: dict[str, RlCourse]
    """Of the same arms: what else is known of RL."""
    likelihoods: list[Likelihood]
    model_labels: dict[str, str]
    error_steps: list[int]
    ks: dict[str, tuple[int, ...]]
    """The k of pass@k, by evaluation set."""
    problem_ids: dict[str, list[str]]
    """Of the counts, in their order: by evaluation set, and of the hard problems as `HARD`."""
    lengths: dict[str, Counter[int]]
    """How many texts of a kind have so many tokens."""
    sft_log: dict[int, dict[str, float]]
    """What fine-tuning logged, by step from 0."""


#: The name of the hard training problems among `ReportData.problem_ids`.
HARD = "hard problems"


def collect(run: Run, method: Method, *, partial: bool = False) -> ReportData:
    """Read the artifacts of a run. Raises ArtifactError if one is missing.

    Of a run that is not finished `partial` reads what is there.
    """
    there = partial_reader(run) if partial else _everything
    evaluations, ids = _evaluated(run, method, there)
    hard = method.hard.read(run) if there(*_selecting(method)) else []
    if there(*_selecting(method)):
        ids[HARD] = [problem.problem_id for problem in hard]
    drawn = method.interventions.verified.items()
    verified = {c: d for c, d in drawn if hard and there(d.rollouts, d.grades)}
    updates = run.recipe.train_rl.num_updates
    courses = {arm: read_course(folder, updates) for arm, folder in _arms(run, method, there)}
    arms = {arm: [group.count for group in course.groups] for arm, course in courses.items()}
    candidates = method.interventions.candidates()
    proposed = candidates.read(run) if there(candidates.proposals) else []
    rl_counts = {f"groups of {arm}": _group_kinds(groups) for arm, groups in arms.items()}
    patched, scored = method.models.patched.trained, method.evaluation.likelihoods
    return ReportData(
        name=run.recipe.name,
        seed=run.recipe.seed,
        funnel=funnel_counts(run, method, there) | rl_counts,
        guided=guided_counts(run, method, there),
        conditions={
            c: count_by_problem(run, d, hard) for c, d in verified.items() if isinstance(d, Graded)
        },
        searches={
            c: stopped_by_problem(run, d, hard)
            for c, d in verified.items()
            if isinstance(d, Searched)
        },
        evaluations=evaluations,
        arms=arms,
        courses=courses,
        likelihoods=[item for stage in scored if there(stage) for item in run.read(stage)],
        model_labels={model.name: model.label for model in method.models.compared},
        error_steps=[p.error_step for p in proposed if p.error_step is not None],
        ks={eval_set: run.recipe.evaluate.ks_of(eval_set) for eval_set in evaluations},
        problem_ids=ids,
        lengths=_lengths(run, method, there),
        sft_log=read_log(run.path(patched), 1) if patched else {},
    )


def _evaluated(
    run: Run, method: Method, there: There
) -> tuple[dict[str, dict[str, list[Count]]], dict[str, list[str]]]:
    """Return the counts by set and model, and the ids of each set's problems in their order."""
    evaluations: dict[str, dict[str, list[Count]]] = {}
    ids: dict[str, list[str]] = {}
    for (role, eval_set), graded in method.evaluation.all.items():
        if there(graded.rollouts, graded.grades):
            problems = method.evaluation.problems(run, eval_set)
            counts = count_by_problem(run, graded, problems)
            evaluations.setdefault(eval_set, {})[method.models.in_role(role).label] = counts
            ids[eval_set] = [problem.problem_id for problem in problems]
    return evaluations, ids


There = Callable[..., bool]
"""Whether the steps that it is given can be read."""


def _everything(*steps: Step) -> bool:
    return True


def partial_reader(run: Run) -> There:
    """Return whether steps are complete: what can be read of a run that is not finished."""
    return lambda *steps: all(run.is_complete(step) for step in steps)


def _selecting(method: Method) -> list[Step]:
    """Return the steps that say which problems are hard."""
    written = method.setup.recipe.reference.write != "none"
    hinted = [method.hinted_statuses] if method.hinted_statuses is not None else []
    return [method.statuses, *([method.references] if written else []), *hinted]


def _arms(run: Run, method: Method, there: There) -> Iterator[tuple[str, Path]]:
    """Yield what is called how of RL, and where it lies; unfinished arms have a beginning."""
    for model in method.models.compared:
        if model.trained and model.role and model.role.rl:
            folder = run.path(model.trained)
            if folder.is_dir() or there(model.trained):
                yield model.label, folder


def _lengths(run: Run, method: Method, there: There) -> dict[str, Counter[int]]:
    """Count the sampled tokens of rollouts, and of interventions that became rows."""
    rollouts, rows = method.train.rollouts, method.models.step_rows
    found: dict[str, Counter[int]] = {}
    if there(rollouts):
        found["rollouts"] = Counter(r.num_tokens for r in run.read(rollouts, ("token_ids",)))
    if there(rows):
        read = run.read(rows, ("input_ids", "labels"))
        ready = (row for row in read if row.outcome is RowOutcome.READY)
        found["interventions"] = Counter(row.intervention_tokens for row in ready)
    return {kind: counts for kind, counts in found.items() if counts}


def count_by_problem(reader: Reader, graded: Graded, problems: Sequence[Problem]) -> list[Count]:
    """Return one count per problem, with zero samples where there is no graded rollout.

    Ungraded rollouts are in no count.
    """
    if not isinstance(graded, Graded):
        raise TypeError("a search stops at what it looks for: it has no unbiased counts")
    counts = tally(reader, graded, lambda grade: grade.problem_id)
    return [counts.get(p.problem_id, Count(0, 0)) for p in problems]


def stopped_by_problem(
    run: Run, found: Searched, problems: Sequence[Problem]
) -> list[StoppedCount]:
    """Return for each problem how many rollouts a search drew and whether one was correct."""
    counts = tally(run, found, lambda grade: grade.problem_id)
    every = (counts.get(p.problem_id, Count(0, 0)) for p in problems)
    return [StoppedCount(count.num_samples, count.is_solved) for count in every]


def tally(reader: Reader, drawn: Drawn, key: Callable[[Grade], str]) -> dict[str, Count]:
    """Count graded and correct rollouts by what `key` returns."""
    samples, correct = Counter[str](), Counter[str]()
    for grade in reader.read(drawn.grades):
        if grade.verdict is not Verdict.UNGRADED:
            samples[key(grade)] += 1
            correct[key(grade)] += grade.verdict is Verdict.CORRECT
    return {name: Count(number, correct[name]) for name, number in samples.items()}


def funnel_counts(
    run: Run, method: Method, there: There = _everything
) -> dict[str, dict[str, int]]:
    """Count every stage up to the rows by outcome, from the manifests."""
    interventions, recipe = method.interventions, method.setup.recipe
    stages: dict[str, Stage[Any, Any] | None] = {
        "rollouts": method.train.rollouts,
        "grades": method.train.grades,
        "problems": method.statuses,
        "proposals": method.proposals,
        _LEAKS: None,
        "continuations": interventions.verified[INTERVENTION].grades,
        "candidates for a row": method.models.step_rows,
    }
    if recipe.reference.write != "none":
        stages["references"] = method.references
    if method.hinted_statuses is not None:
        stages["problems with a hint"] = method.hinted_statuses
    if recipe.verify.shift:
        stages["shifted"] = interventions.candidates().proposals
    if recipe.build_sft.is_baseline:
        stages[f"rows of source {recipe.build_sft.source}"] = method.models.rows
    counts = {
        name: _outcomes(run, stage) if stage else {}
        for name, stage in stages.items()
        if there(stage or method.proposals)
    }
    if not there(method.proposals):
        return counts
    leaks = Counter(bool(p.leaks_substring) for p in run.read(method.proposals, ("turns",)))
    counts |= {_LEAKS: {"leak": leaks[True], "do not": leaks[False]}}
    guided = run.artifact(method.proposals).manifest.get("guided_solutions")
    return counts | ({"guided solutions": guided} if guided else {})


def guided_counts(
    run: Run, method: Method, there: There = _everything
) -> dict[Verdict, GuidedCount]:
    """Count proposals and candidates by what the grader says of their guided solutions."""
    config, interventions = method.setup.recipe.propose, method.interventions
    if not there(method.proposals, interventions.verified[INTERVENTION].grades):
        return {}
    made = [p for p in run.read(method.proposals, ("turns",)) if p.guided_verdict]
    candidates = interventions.candidates().read(run) if made else []
    kept = verified_ids(run, interventions.verified[INTERVENTION].grades)
    found: dict[Verdict, GuidedCount] = {}
    for verdict in Verdict:
        of = [p for p in made if p.guided_verdict is verdict]
        tried = [p for p in candidates if p.guided_verdict is verdict]
        if of:
            found[verdict] = GuidedCount(
                solutions=sum(begins_with_solution(p, config) for p in of),
                proposals=len(of),
                accepted=sum(p.outcome is ProposalOutcome.ACCEPTED for p in of),
                candidates=len(tried),
                kept=sum(p.proposal_id in kept for p in tried),
            )
    return found


def _outcomes(run: Run, stage: Stage[Any, Any]) -> dict[str, int]:
    """Return the counts of a stage, the most common outcome first, and its total."""
    manifest = run.artifact(stage).manifest
    return {**dict(Counter(manifest["counts"]).most_common()), "total": manifest["num_records"]}


def _group_kinds(groups: Sequence[GroupCount]) -> dict[str, int]:
    shares = group_shares([count_of(group) for group in groups])
    of, kinds = shares.num_groups, (shares.none_correct, shares.mixed, shares.all_correct)
    names = ("none correct", "mixed", "all correct")
    counts = {n: round(kind * of) if of else 0 for n, kind in zip(names, kinds, strict=True)}
    return {**counts, "ungraded": len(groups) - of, "total": len(groups)}
