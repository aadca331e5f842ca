"""Interventions and what continuing from them is worth: Tables 1 and 7, Figs 2, 4 and 10.

Coverage counts problems with a correct continuation, accuracy counts continuations. Every row of a
set of problems gets the same number of samples: one set of continuations per attempt, the naive
row too, each afresh from the problem. Beyond the paper: ``shift``, the right step at a wrong place;
``localisation``, does naming the first error matter; ``equal-hints``, hints of as many tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from midcourse.experiments import estimates, results
from midcourse.experiments.estimates import Clusters, each, flat, grouped, mean, only, pool
from midcourse.experiments.readings import candidates_in_place, condition_counts, proposal_counts
from midcourse.experiments.results import Claim, Counts, Experiment, Result, judge, num_items
from midcourse.experiments.runner import ExperimentRunner, Reading
from midcourse.metrics import Count, accuracy
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Condition
from midcourse.report.figures import histogram_panel
from midcourse.report.plots import Panel
from midcourse.steps import insert_step, split_steps
from midcourse.table import Table

# --- Tables 1 and 7, Figure 4, and hints of equal length ---------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of continuations, and where its counts come from."""

    cells: tuple[str, ...]
    """The paper's number of it, what it is, the paper's figures."""
    recipe: str
    reading: Reading[Counts]


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
ROWS_OF_TABLE_7 = (
    Row(("1", "–", "problem", "98/235, 0.97 %"), "appendix-g", PROBLEM),
    Row(("2", "stronger", "+ correct prefix", "120/235, 2.37 %"), "appendix-g", PREFIX),
    Row(("3", "stronger", STEP, "145/235, 3.72 %"), "appendix-g", INTERVENTION),
)
ROWS_OF_HINTS = (
    Row(("hint of equal length",), "equal-hints", HINT),
    Row(("prefix + intervention",), "equal-hints", INTERVENTION),
)

TEN_TIMES = "intervention more than 10 × as accurate as the original step (rows 4, 3)"
COVERS_MORE = "intervention covers more problems than"
ALL_THREE = "hint + prefix + intervention above"
#: What Fig. 4 shows.
INTERVENTION_CLAIMS = (
    Claim(TEN_TIMES, "4", "3", factor=10),
    Claim("intervention above prefix alone (rows 4, 2)", "4", "2"),
    Claim(f"{COVERS_MORE} the original step (rows 4, 3)", "4", "3", coverage=True),
    Claim(f"{COVERS_MORE} naive rollouts (rows 4, 1)", "4", "1", coverage=True),
)
WEAK = "a proposer weak at the format covers fewer problems (rows 4, 5)"
OTHER_CLAIMS = (
    Claim("with a reference above without (rows 4, 7)", "4", "7"),
    Claim("without a reference still above the original step (rows 7, 3)", "7", "3"),
    Claim(f"{ALL_THREE} hint alone (rows 10, 8)", "10", "8"),
    Claim(f"{ALL_THREE} hint + prefix alone (rows 10, 8')", "10", "8'"),
    Claim(f"{ALL_THREE} intervention alone (rows 10, 9)", "10", "9"),
    Claim(f"{COVERS_MORE} a hint (rows 9, 8)", "9", "8", coverage=True),
    Claim("a more capable proposer above the base itself (rows 6, 4)", "6", "4"),
    Claim(WEAK, "4", "5", coverage=True),
)
CLAIMS_OF_TABLE_7 = (
    Claim("prefix alone above the problem", "2", "1"),
    Claim("intervention above prefix alone", "3", "2"),
    Claim(f"{COVERS_MORE} prefix alone", "3", "2", coverage=True),
)
NOTE = (
    "Coverage: problems with at least one correct continuation, of all hard problems. 95 % "
    "intervals: bootstrap over problems; Wilson over samples."
)
NOTE_1 = (
    " Rows 8-10: the hard problems that stay unsolved with a hint; the paper's table says hint + "
    "prefix, its text hint, both are here. Row 11: the one intervention per problem that is "
    "trained on; it was chosen for a correct continuation among the first samples, so their "
    "accuracy is biased upward; the fresh ones are not."
)


def _counts(runner: ExperimentRunner, rows: Sequence[Row]) -> dict[str, dict[str, list[Count]]]:
    return runner.pooled({row.cells[0]: (row.recipe, row.reading) for row in rows})


def _table(
    title: str, rows: Sequence[Row], counts: Mapping[str, Counts], note: str = NOTE
) -> Table:
    found = [(row.cells, counts[row.cells[0]]) for row in rows]
    return results.accuracy_table(title, COLUMNS, found, note)


def _table1(runner: ExperimentRunner) -> Result:
    shown = [row for row in ROWS if runner.has(row.recipe)]
    left_out = [row.cells[0] for row in ROWS if row not in shown]
    note = NOTE + NOTE_1 + "".join(f" The scale names no proposer for row {n}." for n in left_out)
    counts = _counts(runner, shown)
    words = (
        "original step and prefix alone differ by less than a tenth of the intervention's accuracy "
        "(rows 2, 3)"
    )
    tolerance = 0.1 * accuracy(flat(counts["4"]))
    same = estimates.close(words, counts["2"], counts["3"], accuracy, tolerance)
    others = [c for c in OTHER_CLAIMS if c.ours not in left_out and c.theirs not in left_out]
    claims = [*judge(INTERVENTION_CLAIMS, counts), same, *judge(others, counts)]
    title = "Table 1: continuations from interventions and alternatives"
    return Result(tables=[_table(title, shown, counts, note)], claims=claims)


def _table7(runner: ExperimentRunner) -> Result:
    counts = _counts(runner, ROWS_OF_TABLE_7)
    table = _table("Table 7: interventions of a stronger proposer", ROWS_OF_TABLE_7, counts)
    return Result(tables=[table], claims=judge(CLAIMS_OF_TABLE_7, counts))


def _figure4(runner: ExperimentRunner) -> Result:
    counts = _counts(runner, ROWS[:4])
    bars = {row.cells[2].removeprefix("+ "): counts[row.cells[0]] for row in ROWS[1:4]}
    solved = {name: estimates.covered(found) for name, found in bars.items()}
    panels = [
        results.panel({title: found}, accuracy, ("continued from", label), title=title, kind="bar")
        for title, label, found in (
            ("accuracy", "correct continuations, %", bars),
            ("coverage", "problems solved, %", solved),
        )
    ]
    return Result(claims=judge(INTERVENTION_CLAIMS, counts), panels=panels)


def _equal_hints(runner: ExperimentRunner) -> Result:
    counts = _counts(runner, ROWS_OF_HINTS)
    theirs, ours = counts
    claims = (
        Claim("intervention more accurate than a hint of equal length", ours, theirs),
        Claim("intervention covers more problems", ours, theirs, coverage=True),
    )
    title = "Interventions and hints of as many tokens"
    rows = [((name,), found) for name, found in counts.items()]
    table = results.accuracy_table(title, ("given",), rows)
    return Result(tables=[table], claims=judge(claims, counts))


# --- Figures 2 and 10: where first errors lie, and how short interventions are -----------------


@dataclass(frozen=True, slots=True)
class Located:
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
    table = Table(title, ("first error", "interventions", "share %"), rows, note)
    half = each(late, lambda _: 0.5)
    claim = estimates.more("most first errors come after correct steps", late, half, mean)
    steps = [x.error_step + 1 for x in places]
    tenths = [min(9, 10 * x.error_step // x.num_steps) + 1 for x in places]
    y = "interventions, %"
    panels = [
        histogram_panel(steps, "step of the first error", y, "position"),
        histogram_panel(tenths, "tenth of the rollout's steps", y, "relative position"),
    ]
    return Result(tables=[table], claims=[claim], panels=panels)


def _figure10(runner: ExperimentRunner) -> Result:
    found = pool(runner.read("int", _located))
    shorter = each(found, lambda x: x.intervention_tokens)
    longer = each(found, lambda x: x.rollout_tokens)
    rows, panels = [], []
    for name, lengths in (("intervention", shorter), ("full rollout", longer)):
        values, y = flat(lengths), estimates.estimate(lengths, mean)
        average = f"{y.estimate:.1f} [{y.low:.1f}, {y.high:.1f}]"
        rows.append((name, str(len(values)), average, f"{median(values):g}", f"{max(values):g}"))
        panels.append(_length_panel(name, lengths))
    note = "Paper: interventions under 200 tokens, rollouts nearly 7,000 on average."
    columns = ("text", "texts", "mean", "median", "longest")
    table = Table("Figure 10: lengths in tokens", columns, tuple(rows), note)
    words = "rollouts are longer than their interventions"
    claim = estimates.more(words, longer, shorter, mean, scale=1, unit=" tokens")
    return Result(tables=[table], claims=[claim], panels=panels)


def _length_panel(name: str, lengths: Clusters[float]) -> Panel:
    """Return a histogram of at most 20 bins, the bin's lower end as its tick."""
    values = flat(lengths)
    width = max(1, -(-int(max(values, default=1) + 1) // 20))
    bins = [int(value) // width * width for value in values]
    span = range(min(bins, default=0), max(bins, default=-1) + 1, width)
    bars = {low: each(lengths, partial(_is_between, low, low + width)) for low in span}
    labels = (f"tokens (bins of {width})", "texts, %")
    return results.panel(
        {name: bars}, mean, labels, title=name, kind="bar", units=num_items, num_resamples=300
    )


def _is_between(low: int, high: int, value: float) -> float:
    return float(low <= value < high)


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
    rows = [((names[by], str(num_items(c))), _summed(c)) for by, c in counts.items()]
    note = (
        "The world's own step at the true first error, put earlier or later; what has no room is "
        "left out, so that the sets differ. 95 %: bootstrap over problems; Wilson."
    )
    columns = ("moved by, steps", "interventions")
    table = results.accuracy_table("The right step, moved", columns, rows, note)
    words = "the true place is better than"
    claims = [
        estimates.more_accurate(f"{words} {names[by]}", counts[0], found)
        for by, found in counts.items()
        if by
    ]
    labels = ("intervention moved by, steps", "correct continuations, %")
    panel = results.panel({"accuracy": counts}, accuracy, labels)
    return Result(tables=[table], claims=claims, panels=[panel])


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
    places = {
        "at the first error": only(found, lambda place: place[0] == 0),
        "earlier": only(found, lambda place: place[0] < 0),
        "later": only(found, lambda place: place[0] > 0),
    }
    counts = {name: each(there, lambda place: place[1]) for name, there in places.items()}
    right = results.mean_cell(each(found, lambda place: float(place[0] == 0)))
    note = (
        f"Of {num_items(found)} interventions {right} % stand at the true first error. 95 %: "
        "bootstrap over problems; Wilson."
    )
    rows = [((name, str(num_items(c))), _summed(c)) for name, c in counts.items()]
    title, columns = "Success by the place of the intervention", ("intervention", "number")
    table = results.accuracy_table(title, columns, rows, note)
    words, ours = "at the true first error better than elsewhere", counts["at the first error"]
    elsewhere = pool([counts["earlier"], counts["later"]])
    claim = estimates.more_accurate(words, ours, elsewhere)
    return Result(tables=[table], claims=[claim])


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
