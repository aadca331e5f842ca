"""Reads a finished run's artifacts into what the report shows. Nothing is run or written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
    SftRow,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.report.rl import RlCourse, group_traces, read_course
from midcourse.report.tables import GuidedCount
from midcourse.run import Reader, Run, Stage
from midcourse.stages.build_sft import IGNORED
from midcourse.stages.propose import begins_with_solution
from midcourse.steps import split_steps

#: Continuations shown per trace; the rest is counted.
_SHOWN_CONTINUATIONS = 6
#: Traces of proposals in the page, and rollouts of RL; tables count all.
_SHOWN_TRACES = 500
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
    traces: list[dict[str, object]]
    """Proposals with everything around them, and groups of RL, as the viewer shows them."""


def collect(run: Run, method: Method, renderer: Renderer) -> ReportData:
    """Read every artifact of a finished run. Raises ArtifactError if one is missing."""
    evaluations: dict[str, dict[str, list[Count]]] = {}
    for (role, eval_set), graded in method.evaluation.all.items():
        counts = count_by_problem(run, graded, method.evaluation.problems(run, eval_set))
        evaluations.setdefault(eval_set, {})[method.models.in_role(role).label] = counts
    hard = method.hard.read(run)
    verified = method.interventions.verified.items()
    folders = {
        model.label: run.path(model.trained)
        for model in method.models.compared
        if model.trained and model.role and model.role.rl
    }
    updates = run.recipe.train_rl.num_updates
    courses = {arm: read_course(folder, updates) for arm, folder in folders.items()}
    arms = {arm: [group.count for group in course.groups] for arm, course in courses.items()}
    candidates = method.interventions.candidates().read(run)
    rl_counts = {f"groups of {arm}": _group_kinds(groups) for arm, groups in arms.items()}
    return ReportData(
        name=run.recipe.name,
        seed=run.recipe.seed,
        funnel=funnel_counts(run, method) | rl_counts,
        guided=guided_counts(run, method),
        conditions={
            c: count_by_problem(run, d, hard) for c, d in verified if isinstance(d, Graded)
        },
        searches={
            c: stopped_by_problem(run, d, hard) for c, d in verified if isinstance(d, Searched)
        },
        evaluations=evaluations,
        arms=arms,
        courses=courses,
        likelihoods=[item for stage in method.evaluation.likelihoods for item in run.read(stage)],
        model_labels={model.name: model.label for model in method.models.compared},
        error_steps=[p.error_step for p in candidates if p.error_step is not None],
        ks={eval_set: run.recipe.evaluate.ks_of(eval_set) for eval_set in evaluations},
        traces=[*_traces(run, method, renderer), *_rl_traces(method, folders, courses)],
    )


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


def funnel_counts(run: Run, method: Method) -> dict[str, dict[str, int]]:
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
    counts = {name: _outcomes(run, stage) if stage else {} for name, stage in stages.items()}
    leaks = Counter(bool(p.leaks_substring) for p in run.read(method.proposals, ("turns",)))
    counts |= {_LEAKS: {"leak": leaks[True], "do not": leaks[False]}}
    guided = run.artifact(method.proposals).manifest.get("guided_solutions")
    return counts | ({"guided solutions": guided} if guided else {})


def guided_counts(run: Run, method: Method) -> dict[Verdict, GuidedCount]:
    """Count proposals and candidates by what the grader says of their guided solutions."""
    config, interventions = method.setup.recipe.propose, method.interventions
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


def _traces(run: Run, method: Method, renderer: Renderer) -> Iterator[dict[str, object]]:
    """Yield a trace per proposal, accepted or not; of very many, the first ones on disk."""
    problems = {problem.problem_id: problem for problem in method.setup.problems.train}
    proposals = list(islice(run.read(method.proposals), _SHOWN_TRACES))
    shown = {proposal.proposal_id for proposal in proposals}
    rollouts = {rollout.rollout_id: rollout for rollout in run.read(method.cases)}
    continuations = _continuations(run, method.interventions.verified[INTERVENTION], shown)
    rows = {r.proposal_id: r for r in run.read(method.models.step_rows) if r.proposal_id in shown}
    for proposal in proposals:
        problem, rollout = problems[proposal.problem_id], rollouts[proposal.rollout_id]
        found, row = continuations[proposal.proposal_id], rows.get(proposal.proposal_id)
        yield {
            "problem_id": problem.problem_id,
            "problem": problem.text,
            "answer": problem.answer,
            "reference": problem.reference_solution or "none",
            "rollout_id": rollout.rollout_id,
            "steps": [step.strip() for step in split_steps(rollout.text)],
            "proposal_id": proposal.proposal_id,
            "outcome": str(proposal.outcome),
            "detail": proposal.detail,
            "location": proposal.location,
            "intervention": (proposal.intervention or "").strip(),
            "turns": [[turn.prompt, turn.reply] for turn in proposal.turns],
            "continuations": found[:_SHOWN_CONTINUATIONS],
            "verdicts": dict(Counter(verdict for _, verdict in found)),
            "tokens": _row_tokens(renderer, row) if row else [],
        }


def _rl_traces(
    method: Method, folders: Mapping[str, Path], courses: Mapping[str, RlCourse]
) -> Iterator[dict[str, object]]:
    """Yield a trace per group of RL; the arms share the room."""
    problems = {problem.problem_id: problem for problem in method.setup.problems.train}
    for arm, folder in folders.items():
        most = _SHOWN_TRACES // len(folders)
        yield from group_traces(folder, arm, courses[arm].groups, problems, most)


def _continuations(
    run: Run, drawn: Drawn, proposal_ids: Collection[str]
) -> Mapping[str, list[tuple[str, str]]]:
    """Return (text, verdict) of each proposal's continuations; texts only of those shown."""
    wanted = (g for g in run.read(drawn.grades) if g.parent_id in proposal_ids)
    verdicts = {g.rollout_id: str(g.verdict) for g in wanted}
    found = defaultdict[str, list[tuple[str, str]]](list)
    for rollout in run.read(drawn.rollouts, ("token_ids",)):
        if rollout.rollout_id in verdicts:
            of = found[str(rollout.parent_id)]
            text = rollout.text if len(of) < _SHOWN_CONTINUATIONS else ""
            of.append((text, verdicts[rollout.rollout_id]))
    return found


def _row_tokens(renderer: Renderer, row: SftRow) -> list[tuple[str, bool]]:
    """Return the last 200 tokens of a row with whether each is trained."""
    pairs = list(zip(row.input_ids, row.labels, strict=True))[-200:]
    return [(renderer.tokenizer.decode([token]), label != IGNORED) for token, label in pairs]
