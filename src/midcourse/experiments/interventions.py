"""Interventions and what continuing from them is worth: Tables 1 and 7, Figs 2, 4 and 10.

Coverage counts problems with a correct continuation, accuracy counts continuations. Every row of a
set of problems gets the same number of samples: one set of continuations per attempt, the naive
row too, each afresh from the problem. Beyond the paper: ``shift``, the right step at a wrong place;
``localisation``, does naming the first error matter; ``equal-hints``, hints of as many tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import eq
from statistics import median
from typing import NamedTuple

from midcourse.experiments import estimates, results
from midcourse.experiments.estimates import Clusters, Counts, each, flat, grouped, only, pool
from midcourse.experiments.readings import candidates_in_place, condition_counts, proposal_counts
from midcourse.experiments.results import Claim, Experiment, Result, Row, num_items
from midcourse.experiments.runner import ExperimentRunner, Reading
from midcourse.metrics import Count, accuracy, mean
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Condition
from midcourse.report.figures import histogram_panel, panel
from midcourse.report.plots import Panel
from midcourse.steps import insert_step, split_steps
from midcourse.table import Table

# --- Tables 1 and 7, Figure 4, and hints of equal length ---------------------------------------


def _kept(session: Session, method: Method, *, fresh: bool) -> Counts:
    """Return, per hard problem, the continuations of the intervention kept for training.

    With `fresh`, those that were drawn after the choice.
    """
    rows = ready_rows(session, method.models.rows)
    kept = {row.problem_id: Count(row.num_continuations, row.num_correct) for row in rows}
    if fresh:
        again = proposal_counts(session, method.interventions.reestimated)
        kept = {r.problem_id: again[str(r.proposal_id)] for r in rows if r.proposal_id in again}
    hard = method.hard.read(session)
    return {p.problem_id: [kept.get(p.problem_id, Count(0, 0))] for p in hard}


def _under(condition: Condition) -> Reading[Counts]:
    return partial(condition_counts, condition=condition)


PROBLEM, PREFIX = _under(Condition.PROBLEM), _under(Condition.PREFIX)
ERROR, INTERVENTION = _under(Condition.PREFIX_ERROR), _under(Condition.PREFIX_INTERVENTION)
HINT, HINT_PREFIX = _under(Condition.HINT), _under(Condition.HINT_PREFIX)
HINT_STEP = _under(Condition.HINT_PREFIX_INTERVENTION)
BASE, KEPT, STEP = "the base", "the base, kept for training", "+ prefix + intervention"
COLUMNS = ("row", "proposer", "continued from", "paper: coverage, accuracy")
ROWS = (
    Row(("1", "–", "problem", "40/334, 0.0984 %"), "conditions", PROBLEM),
    Row(("2", BASE, "+ correct prefix", "31/334, 0.0726 %"), "conditions", PREFIX),
    Row(("3", BASE, "+ prefix + original step", "29/334, 0.0713 %"), "conditions", ERROR),
    Row(("4", BASE, STEP, "80/334, 1.56 %"), "conditions", INTERVENTION),
    Row(("5", "weak at the format", STEP, "73/334, 2.65 %"), "proposer-weak", INTERVENTION),
    Row(("6", "more capable", STEP, "101/334, 2.87 %"), "proposer-capable", INTERVENTION),
    Row(("7", "the base, no reference", STEP, "47/334, 0.171 %"), "no-reference", INTERVENTION),
    Row(("8", "–", "+ hint", "11/176, 2.38 %"), "hints", HINT),
    Row(("8'", BASE, "+ hint + prefix", "11/176, 2.38 %"), "hints", HINT_PREFIX),
    Row(("9", BASE, STEP, "18/176, 3.05 %"), "hints", INTERVENTION),
    Row(("10", BASE, "+ hint + prefix + intervention", "25/176, 4.62 %"), "hints", HINT_STEP),
    Row(("11", KEPT, STEP, "1076/4048, 4.27 %"), "int", partial(_kept, fresh=False)),
    Row(("11, fresh samples", KEPT, STEP, "1076/4048, 4.27 %"), "int", partial(_kept, fresh=True)),
)
COVERS_MORE = "intervention covers more problems than"
ALL_THREE = "hint + prefix + intervention above"
#: What Fig. 4 shows.
INTERVENTION_CLAIMS = (
    Claim(
        "intervention more than 10 × as accurate as the original step (rows 4, 3)",
        "4", "3", factor=10,
    ),
    Claim("intervention above prefix alone (rows 4, 2)", "4", "2"),
    Claim(f"{COVERS_MORE} the original step (rows 4, 3)", "4", "3", coverage=True),
    Claim(f"{COVERS_MORE} naive rollouts (rows 4, 1)", "4", "1", coverage=True),
)  # fmt: skip
SAME = (
    "original step and prefix alone differ by less than a tenth of the intervention's accuracy "
    "(rows 2, 3)"
)
WEAK = "a proposer weak at the format covers fewer problems (rows 4, 5)"
CLAIMS = (
    *INTERVENTION_CLAIMS,
    Claim(SAME, "2", "3", tenth_of="4"),
    Claim("with a reference above without (rows 4, 7)", "4", "7"),
    Claim("without a reference still above the original step (rows 7, 3)", "7", "3"),
    Claim(f"{ALL_THREE} hint alone (rows 10, 8)", "10", "8"),
    Claim(f"{ALL_THREE} hint + prefix alone (rows 10, 8')", "10", "8'"),
    Claim(f"{ALL_THREE} intervention alone (rows 10, 9)", "10", "9"),
    Claim(f"{COVERS_MORE} a hint (rows 9, 8)", "9", "8", coverage=True),
    Claim("a more capable proposer above the base itself (rows 6, 4)", "6", "4"),
    Claim(WEAK, "4", "5", coverage=True),
)
NOTE = (
    "Coverage: problems with at least one correct continuation, of all hard problems. 95 % "
    "intervals: bootstrap over problems; Wilson over samples."
)
_table1 = partial(
    results.compared,
    title="Table 1: continuations from interventions and alternatives",
    columns=COLUMNS,
    rows=ROWS,
    claims=CLAIMS,
    note=f"{NOTE} Rows 8-10: the hard problems that stay unsolved with a hint; the paper's table "
    "says hint + prefix, its text hint, both are here. Row 11: the one intervention per problem "
    "that is trained on; it was chosen for a correct continuation among the first samples, so "
    "their accuracy is biased upward; the fresh ones are not.",
)
_table7 = partial(
    results.compared,
    title="Table 7: interventions of a stronger proposer",
    columns=COLUMNS,
    rows=(
        Row(("1", "–", "problem", "98/235, 0.97 %"), "appendix-g", PROBLEM),
        Row(("2", "stronger", "+ correct prefix", "120/235, 2.37 %"), "appendix-g", PREFIX),
        Row(("3", "stronger", STEP, "145/235, 3.72 %"), "appendix-g", INTERVENTION),
    ),
    claims=(
        Claim("prefix alone above the problem", "2", "1"),
        Claim("intervention above prefix alone", "3", "2"),
        Claim(f"{COVERS_MORE} prefix alone", "3", "2", coverage=True),
    ),
    note=NOTE,
)
EQUAL_HINT, INTERVENED = "hint of equal length", "prefix + intervention"
_equal_hints = partial(
    results.compared,
    title="Interventions and hints of as many tokens",
    columns=("given",),
    rows=(
        Row((EQUAL_HINT,), "equal-hints", HINT),
        Row((INTERVENED,), "equal-hints", INTERVENTION),
    ),
    claims=(
        Claim("intervention more accurate than a hint of equal length", INTERVENED, EQUAL_HINT),
        Claim("intervention covers more problems", INTERVENED, EQUAL_HINT, coverage=True),
    ),
)


def _figure4(runner: ExperimentRunner) -> Result:
    counts = results.read_rows(runner, ROWS[:4])
    bars = {row.cells[2].removeprefix("+ "): counts[row.cells[0]] for row in ROWS[1:4]}
    solved = {name: estimates.covered(found) for name, found in bars.items()}
    y = partial(estimates.estimate, statistic=accuracy)
    panels = [
        panel({title: found}, y, ("continued from", label), title=title, kind="bar")
        for title, label, found in (
            ("accuracy", "correct continuations, %", bars),
            ("coverage", "problems solved, %", solved),
        )
    ]
    return Result(claims=results.judge(INTERVENTION_CLAIMS, counts), panels=panels)


# --- Figures 2 and 10: where first errors lie, and how short interventions are -----------------


class Located(NamedTuple):
    """One accepted intervention, e.g. at step 2 of 6, 11 tokens for a rollout of 70."""

    error_step: int
    num_steps: int
    intervention_tokens: float
    rollout_tokens: float


def _located(session: Session, method: Method) -> Clusters[Located]:
    """Return every verified candidate, by problem."""
    renderer, found = session.tools.renderer(method.setup.base), []
    for proposal, rollout in candidates_in_place(session, method):
        num_tokens = float(len(renderer.encode(proposal.intervention or "")))
        num_steps, step = len(split_steps(rollout.text)), insert_step(proposal)
        place = Located(step, num_steps, num_tokens, float(rollout.num_tokens))
        found.append((rollout.problem_id, place))
    return grouped(found)


def _figure2(runner: ExperimentRunner) -> Result:
    found = pool(runner.read("int", _located))
    places, late = flat(found), each(found, lambda x: float(x.error_step >= 1))
    middle = each(found, lambda x: float(2 * x.error_step >= x.num_steps))
    number = str(len(places))
    rows = (
        ("after at least one correct step", number, results.mean_cell(late)),
        ("in the second half of the rollout", number, results.mean_cell(middle)),
    )
    title = "Figure 2: where the first error lies, as proposed"
    note = "Paper: over 70 % after the first 50 steps. 95 % bootstrap over problems."
    half, words = each(late, lambda _: 0.5), "most first errors come after correct steps"
    steps = [x.error_step + 1 for x in places]
    tenths = [min(9, 10 * x.error_step // x.num_steps) + 1 for x in places]
    x, y = ("step of the first error", "tenth of the rollout's steps"), "interventions, %"
    return Result(
        tables=[Table(title, ("first error", "interventions", "share %"), rows, note)],
        claims=[estimates.more(words, late, half, mean)],
        panels=[
            histogram_panel(steps, (x[0], y), "position"),
            histogram_panel(tenths, (x[1], y), "relative position"),
        ],
    )


def _figure10(runner: ExperimentRunner) -> Result:
    found = pool(runner.read("int", _located))
    lengths = {
        "intervention": each(found, lambda x: x.intervention_tokens),
        "full rollout": each(found, lambda x: x.rollout_tokens),
    }
    shorter, longer = lengths.values()
    rows = []
    for name, values in lengths.items():
        every = flat(values)
        middle, longest = f"{median(every):g}", f"{max(every):g}"
        rows.append((name, *results.text_cells(values, digits=1), middle, longest))
    note = "Paper: interventions under 200 tokens, rollouts nearly 7,000 on average."
    columns = ("text", "texts", "mean", "median", "longest")
    words = "rollouts are longer than their interventions"
    return Result(
        tables=[Table("Figure 10: lengths in tokens", columns, tuple(rows), note)],
        claims=[estimates.more(words, longer, shorter, mean, scale=1, unit=" tokens")],
        panels=[_length_panel(name, values) for name, values in lengths.items()],
    )


def _length_panel(name: str, lengths: Clusters[float]) -> Panel:
    """Return a histogram of at most 20 bins, the bin's lower end as its tick."""
    width = max(1, -(-int(max(flat(lengths), default=1) + 1) // 20))
    bins = each(lengths, lambda value: int(value) // width * width)
    low, high = min(flat(bins), default=0), max(flat(bins), default=-1)
    bars = {low: each(bins, partial(eq, low)) for low in range(low, high + 1, width)}
    y = partial(estimates.estimate, statistic=mean, num_resamples=300)
    labels = (f"tokens (bins of {width})", "texts, %")
    return panel({name: bars}, y, labels, title=name, kind="bar", units=num_items)


# --- beyond the paper: the lab knows the true first error --------------------------------------

SHIFTS = range(-3, 4)


def _shifted(session: Session, method: Method, shift: int) -> Counts:
    """Return the counts of every candidate that can be moved so far, by problem."""
    candidates = method.interventions.candidates(shift).read(session)
    problems = {proposal.proposal_id: proposal.problem_id for proposal in candidates}
    drawn = method.interventions.verify(Condition.PREFIX_INTERVENTION, shift)
    counts = proposal_counts(session, drawn)
    return grouped((problems[proposal_id], count) for proposal_id, count in counts.items())


def _shift(runner: ExperimentRunner) -> Result:
    recipe = "true-interventions"
    counts = runner.pooled({by: (recipe, partial(_shifted, shift=by)) for by in SHIFTS})
    names = {by: f"{by:+d}" if by else "0" for by in SHIFTS}
    note = (
        "The world's own step at the true first error, put earlier or later; what has no room is "
        "left out, so that the sets differ. 95 %: bootstrap over problems; Wilson."
    )
    table = _by_candidate(
        "The right step, moved",
        ("moved by, steps", "interventions"),
        {names[by]: found for by, found in counts.items()},
        note,
    )
    claims = [
        estimates.more_accurate(f"the true place is better than {names[by]}", counts[0], found)
        for by, found in counts.items()
        if by
    ]
    y = partial(estimates.estimate, statistic=accuracy)
    labels = ("intervention moved by, steps", "correct continuations, %")
    return Result(tables=[table], claims=claims, panels=[panel({"accuracy": counts}, y, labels)])


def _by_candidate(
    title: str, columns: Sequence[str], counts: Mapping[str, Counts], note: str
) -> Table:
    """Return how many candidates there are, and their continuations, added up by problem."""
    rows = [((name, str(num_items(c))), _summed(c)) for name, c in counts.items()]
    return results.accuracy_table(title, columns, rows, note)


def _summed(found: Counts) -> Counts:
    """Add up the candidates of each problem."""
    return {
        problem_id: [Count(sum(c.num_samples for c in counts), sum(c.num_correct for c in counts))]
        for problem_id, counts in found.items()
    }


def _offsets(session: Session, method: Method) -> Clusters[tuple[int, Count]]:
    """Return (location − true first error, counts) of each candidate, by problem."""
    from midcourse.lab.problems import lab_problems
    from midcourse.lab.truth import first_error

    recipe = method.setup.recipe
    stories = lab_problems(recipe.problems, recipe.seed).stories
    verified = method.interventions.verified[Condition.PREFIX_INTERVENTION]
    counts, found = proposal_counts(session, verified), []
    in_order = sorted(candidates_in_place(session, method), key=lambda pair: pair[1].rollout_id)
    for proposal, rollout in in_order:
        truth = first_error(rollout.text, stories[proposal.problem_id])
        if truth is not None and proposal.proposal_id in counts:
            place = (insert_step(proposal) - truth, counts[proposal.proposal_id])
            found.append((proposal.problem_id, place))
    return grouped(found)


def _localisation(runner: ExperimentRunner) -> Result:
    found = pool(runner.read("int", _offsets))
    signs = {"at the first error": 0, "earlier": -1, "later": 1}
    counts = {name: _with_sign(found, sign) for name, sign in signs.items()}
    right = results.mean_cell(each(found, lambda place: float(place[0] == 0)))
    note = (
        f"Of {num_items(found)} interventions {right} % stand at the true first error. 95 %: "
        "bootstrap over problems; Wilson."
    )
    title = "Success by the place of the intervention"
    table = _by_candidate(title, ("intervention", "number"), counts, note)
    at, earlier, later = counts.values()
    words = "at the true first error better than elsewhere"
    claim = estimates.more_accurate(words, at, pool([earlier, later]))
    return Result(tables=[table], claims=[claim])


def _with_sign(found: Clusters[tuple[int, Count]], sign: int) -> Counts:
    """Return the counts of candidates before (-1), at (0) or after (1) the true first error."""
    there = only(found, lambda place: (place[0] > 0) - (place[0] < 0) == sign)
    return each(there, lambda place: place[1])


RECIPES_1 = tuple(dict.fromkeys(row.recipe for row in ROWS))
TRUTH = ("true-interventions",)
PLACE = "Beyond: naming the first error, and success"
HINTS = "Beyond: interventions against hints of equal length"
EXPERIMENTS = (
    Experiment("table1", "Table 1: interventions and alternatives", _table1, RECIPES_1),
    Experiment("table7", "Table 7: a stronger proposer", _table7, ("appendix-g",)),
    Experiment("fig2", "Figure 2: where the first error lies", _figure2),
    Experiment("fig4", "Figure 4: prefix, original step, intervention", _figure4, ("conditions",)),
    Experiment("fig10", "Figure 10: lengths of interventions", _figure10),
    Experiment("shift", "Beyond: the intervention at another place", _shift, TRUTH, needs_lab=True),
    Experiment("localisation", PLACE, _localisation, needs_lab=True),
    Experiment("equal-hints", HINTS, _equal_hints, ("equal-hints",)),
)
