"""Beyond the paper: what the lab can tell because it knows the true first error, and three more.

shift: the right step at a wrong place. localisation: does naming the first error matter?
zero-advantage: where its drop comes from. iterated: three rounds of InT against one of equal
sampling. equal-hints: interventions against hints of as many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from midcourse.errors import ConfigError
from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import (
    Clusters,
    covered,
    estimate,
    mean,
    more,
    more_accurate,
    passes,
    pool,
)
from midcourse.experiments.patches import pass_table, usable_ks
from midcourse.experiments.readings import (
    condition_counts,
    evaluation_counts,
    group_counts,
    joined,
    proposal_counts,
)
from midcourse.experiments.results import Experiment, Result
from midcourse.experiments.table1 import row_cells
from midcourse.metrics import Count, accuracy
from midcourse.pipeline import Pipeline
from midcourse.pipeline.training import ready_rows
from midcourse.records import Condition, GroupCount, Rollout
from midcourse.report.figures import percent
from midcourse.report.plots import Figure, Panel, Point, Series
from midcourse.steps import insert_step
from midcourse.table import Table, share

INTERVENTION = Condition.PREFIX_INTERVENTION
SHIFTS = range(-3, 4)
COUNT_COLUMNS = ("coverage", "correct", "accuracy %, by problem", "accuracy %, Wilson")


def _shifted(pipeline: Pipeline, shift: int) -> dict[str, list[Count]]:
    """Return the counts of every candidate that can be moved so far, by problem."""
    problems = {p.proposal_id: p.problem_id for p in pipeline.candidates_at(shift)}
    found: dict[str, list[Count]] = {}
    for proposal_id, count in proposal_counts(pipeline.verify(INTERVENTION, shift)).items():
        found.setdefault(problems[proposal_id], []).append(count)
    return found


def _shift(bench: Bench) -> Result:
    counts = {
        shift: joined(bench.read("true-interventions", lambda p, s=shift: _shifted(p, s)))  # type: ignore[misc]
        for shift in SHIFTS
    }
    rows = []
    for shift, found in counts.items():
        interventions = sum(len(members) for members in found.values())
        coverage, *cells = row_cells(_by_problem(found))
        rows.append((f"{shift:+d}" if shift else "0", str(interventions), coverage, *cells))
    table = Table(
        "The right step, moved", ("moved by, steps", "interventions", *COUNT_COLUMNS), tuple(rows),
        "The world's own step at the true first error, put earlier or later; what has no room is "
        "left out, so that the sets differ. 95 %: bootstrap over problems; Wilson.",
    )  # fmt: skip
    claims = [
        more_accurate(f"the true place is better than {shift:+d}", counts[0], counts[shift])
        for shift in SHIFTS if shift
    ]  # fmt: skip
    points = tuple(
        Point(shift, percent(estimate(found, accuracy)), len(found))
        for shift, found in counts.items()
    )
    panel = Panel(title="", x_label="intervention moved by, steps",
                  y_label="correct continuations, %",
                  series=(Series("accuracy", points),))  # fmt: skip
    return Result(tables=(table,), claims=tuple(claims), figure=Figure("shift", (panel,)))


def _by_problem(found: Clusters[Count]) -> dict[str, list[Count]]:
    """Add up the candidates of each problem."""
    return {
        problem_id: [Count(sum(c.num_samples for c in counts), sum(c.num_correct for c in counts))]
        for problem_id, counts in found.items()
    }


#: By how far an intervention stands from the true first error.
PLACES: dict[str, Callable[[int], bool]] = {
    "at the first error": lambda offset: offset == 0,
    "earlier": lambda offset: offset < 0,
    "later": lambda offset: offset > 0,
}


def _located(pipeline: Pipeline) -> dict[str, list[tuple[int, Count]]]:
    """Return (location − true first error, counts) of each candidate, by problem."""
    from midcourse.lab.problems import lab_problems
    from midcourse.lab.truth import first_error

    recipe = pipeline.recipe
    stories = lab_problems(recipe.problems, recipe.seed).stories
    texts = {
        r.rollout_id: r.text
        for r in pipeline.train_rollouts.rollouts.read(Rollout, without=("token_ids",))
    }
    counts = proposal_counts(pipeline.verified[INTERVENTION])
    found: dict[str, list[tuple[int, Count]]] = {}
    for proposal in pipeline.candidates:
        truth = first_error(texts[proposal.rollout_id], stories[proposal.problem_id])
        if truth is not None and proposal.proposal_id in counts:
            place = (insert_step(proposal) - truth, counts[proposal.proposal_id])
            found.setdefault(proposal.problem_id, []).append(place)
    return found


def _localisation(bench: Bench) -> Result:
    found = joined(bench.read("int", _located))
    exact = {p: [float(offset == 0) for offset, _ in places] for p, places in found.items()}
    by_place = {
        name: {
            p: chosen for p, places in found.items()
            if (chosen := [count for offset, count in places if is_there(offset)])
        }
        for name, is_there in PLACES.items()
    }  # fmt: skip
    rows = []
    for name, counts in by_place.items():
        interventions = sum(len(members) for members in counts.values())
        rows.append((name, str(interventions), *row_cells(_by_problem(counts))))
    right = estimate(exact, mean)
    total = sum(len(members) for members in found.values())
    table = Table(
        "Success by the place of the intervention", ("intervention", "number", *COUNT_COLUMNS),
        tuple(rows),
        f"Of {total} interventions {share(right, 1)} % stand at the true first error. 95 %: "
        "bootstrap over problems; Wilson.",
    )  # fmt: skip
    elsewhere = joined([by_place["earlier"], by_place["later"]])
    claim = more_accurate("at the true first error better than elsewhere",
                          by_place["at the first error"], elsewhere)  # fmt: skip
    return Result(tables=(table,), claims=(claim,))


@dataclass(frozen=True, slots=True)
class Drop:
    """How much less often one problem's groups had none correct from the patched model."""

    is_hard: bool
    """Never solved by the base: what is gained is newly solvable."""
    before: float
    after: float


def _none_correct(groups: Sequence[GroupCount]) -> dict[str, float]:
    """Return the share of each problem's graded groups without a correct rollout."""
    found: dict[str, list[float]] = {}
    for group in groups:
        if group.num_correct + group.num_incorrect:
            found.setdefault(group.problem_id, []).append(float(group.num_correct == 0))
    return {problem_id: mean(shares) for problem_id, shares in found.items()}


def _drops(pipeline: Pipeline) -> dict[str, Drop]:
    """Return the drop of every problem that both RL runs met."""
    hard = {problem.problem_id for problem in pipeline.hard_problems}
    before, after = (
        _none_correct(group_counts(pipeline, role)) for role in ("base + RL", "patched + RL")
    )
    return {p: Drop(p in hard, before[p], after[p]) for p in before.keys() & after.keys()}


def _zero_advantage(bench: Bench) -> Result:
    drops = pool(bench.read("int", _drops))
    parts = {
        name: {p: [(d.before - d.after) * (d.is_hard is hard) for d in members]
               for p, members in drops.items()}
        for name, hard in (("newly solvable: pass@k = 0 under the base", True),
                           ("solvable before: more variance", False))
    }  # fmt: skip
    rows = []
    for (name, values), hard in zip(parts.items(), (True, False), strict=True):
        members = [d for ds in drops.values() for d in ds if d.is_hard is hard]
        rates = [f"{100 * mean([getattr(d, when) for d in members]):.1f}"
                 for when in ("before", "after")]  # fmt: skip
        rows.append((name, str(len(members)), *rates, share(estimate(values, mean), 1)))
    table = Table(
        "Where the drop of the zero-advantage ratio comes from",
        ("problems", "number", "ratio in RL from the base, %", "from the patched model, %",
         "contribution to the drop, points"), tuple(rows),
        "Mean over problems that both runs met, all iterations; the contributions add up to the "
        "whole drop. 95 % bootstrap over problems.",
    )  # fmt: skip
    new, old = parts.values()
    claim = more("most of the drop comes from newly solvable problems", new, old, mean)
    return Result(tables=(table,), claims=(claim,))


NUM_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Round:
    """What a round leaves: its patched model, and how that does."""

    path: str
    num_rows: int
    held_out: dict[str, Count]


def _round(pipeline: Pipeline) -> Round | None:
    """Run one round; None if there is nothing left to intervene in."""
    rows = len(ready_rows(pipeline.rows))
    if not rows:
        return None
    counts = evaluation_counts(pipeline, "patched", "held_out")
    return Round(pipeline.patched.path, rows, counts)


def _rounds(bench: Bench, seed: int) -> list[Round]:
    """Patch, sample again, intervene again; the original base proposes throughout."""
    base = bench.recipe("iterated", seed).model.path
    done: list[Round] = []
    for number in range(1, NUM_ROUNDS + 1):
        start = done[-1].path if done else base
        ours = (f"name=iterated-{number}", f"model.path={start}", f"proposer_model.path={base}")
        settings = (*bench.settings, *(ours if number > 1 else ours[:1]))
        this = replace(bench, seeds=(seed,), settings=settings)
        (made,) = this.read("iterated", _round)
        if made is None:
            break
        done.append(made)
    return done


def _iterated(bench: Bench) -> Result:
    rounds = [_rounds(bench, seed) for seed in bench.seeds]
    single = bench.read("equal-budget", _round)
    if any(made is None for made in single) or not all(rounds):
        raise ConfigError("iterated: no intervention was verified, so there is nothing to compare")
    models = {"base": pool(bench.read("int", lambda p: evaluation_counts(p, "base", "held_out")))}
    sizes = {"base": "–"}
    for number in range(NUM_ROUNDS):
        # A seed that ran out of interventions keeps its last model.
        reached = [done[min(number, len(done) - 1)] for done in rounds]
        label = f"{number + 1} round{'s' if number else ''}"
        models[label] = pool(made.held_out for made in reached)
        sizes[label] = "/".join(str(made.num_rows) for made in reached)
    one = "1 round, equal sampling"
    made_once = [made for made in single if made is not None]
    models[one] = pool(made.held_out for made in made_once)
    sizes[one] = "/".join(str(made.num_rows) for made in made_once)
    ks = usable_ks(*models.values())
    table = pass_table("Iterated InT on held-out problems", models, ks)
    rows = tuple((row[0], sizes[row[0]], *row[1:]) for row in table.rows)
    note = f"{table.note} Rows: by seed, of the round. The base proposes in every round."
    table = replace(table, columns=("model", "rows", *table.columns[1:]), rows=rows, note=note)
    last = f"{NUM_ROUNDS} rounds"
    claims = [
        more(f"{last} above {other}, pass@{k}", passes(models[last], k), passes(models[other], k),
             mean)
        for other in ("1 round", one) for k in (1, ks[-1])
    ]  # fmt: skip
    return Result(tables=(table,), claims=tuple(claims))


def _equal_hints(bench: Bench) -> Result:
    names = {Condition.HINT: "hint of equal length", INTERVENTION: "prefix + intervention"}
    counts = {
        condition: pool(bench.read("equal-hints", lambda p, c=condition: condition_counts(p, c)))  # type: ignore[misc]
        for condition in names
    }
    rows = tuple((names[c], *row_cells(found)) for c, found in counts.items())
    table = Table("Interventions and hints of as many tokens", ("given", *COUNT_COLUMNS), rows,
                  "95 %: bootstrap over problems; Wilson.")  # fmt: skip
    ours, theirs = counts[INTERVENTION], counts[Condition.HINT]
    claims = (
        more_accurate("intervention more accurate than a hint of equal length", ours, theirs),
        more_accurate("intervention covers more problems", covered(ours), covered(theirs)),
    )
    return Result(tables=(table,), claims=claims)


SHIFT = Experiment(
    name="shift", title="Beyond: the intervention at another place",
    recipes=("true-interventions",), make=_shift, needs_lab=True,
)  # fmt: skip
LOCALISATION = Experiment(
    name="localisation", title="Beyond: naming the first error, and success", recipes=("int",),
    make=_localisation, needs_lab=True,
)  # fmt: skip
ZERO_ADVANTAGE = Experiment(
    name="zero-advantage", title="Beyond: newly solvable, or new variance?", recipes=("int",),
    make=_zero_advantage,
)  # fmt: skip
ITERATED = Experiment(
    name="iterated", title="Beyond: three rounds against one",
    recipes=("int", "iterated", "equal-budget"), make=_iterated,
)  # fmt: skip
EQUAL_HINTS = Experiment(
    name="equal-hints", title="Beyond: interventions against hints of equal length",
    recipes=("equal-hints",), make=_equal_hints,
)  # fmt: skip
