"""Measures the premise of the rules world, before anything is concluded from runs in it.

First what the base can and cannot do, then what the paper's argument rests on (Fig. 9): how likely
interventions, its own rewrites, teachers' traces and references are under it. Each line has one of
three answers: the 95 % interval lies on the required side, on the other, or cannot tell.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice, pairwise, starmap

from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.engines.base import TokenScores
from midcourse.lab.probe import Probe, Told
from midcourse.lab.rules.style import TEACHERS, Style
from midcourse.lab.rules.world import Kind, Story
from midcourse.lab.telling import final_step
from midcourse.lab.worlds import RULES
from midcourse.metrics import Interval, bootstrap, mean, wilson
from midcourse.records import Problem, Proposal
from midcourse.stages.propose import Case
from midcourse.steps import BLANK_LINES, STEP_SEPARATOR
from midcourse.table import Table, share

#: Of rollouts, as in `scale/lab2`; the longest right ones have about 270 tokens. The last percent
#: of a token's distribution is left out: a model of this size has words of its other tasks there.
SAMPLING = SamplingConfig(max_tokens=320, top_p=0.99)
_PROPOSE = ProposeConfig(
    turns="single",
    num_rollouts=2,
    num_proposals=1,
    max_intervention_tokens=40,
    sampling=SamplingConfig(max_tokens=400),
)
#: Hard problems of each kind whose reach is measured: 0 of 16 is below 20 % with 95 % certainty.
_FAR_PROBLEMS = 16
_HARD_KINDS = (Kind.SINGLE, Kind.COMPOSED)
Row = tuple[str, ...]


def check_rules(
    model: str, num_problems: int, seed: int, far_k: int = 1024
) -> tuple[list[Table], bool]:
    """Return what was measured, in three tables, and whether all that is required is met."""
    base = Probe.of(model, RULES, seed, SAMPLING)
    sampled = {kind: base.sample(kind, num_problems, 64) for kind in Kind}
    wrong = [case for kind in _HARD_KINDS for case in _wrong(base, sampled[kind])]
    given = base.propose(wrong, _PROPOSE, "given")
    bare = base.propose(wrong, _PROPOSE, "none")
    tables = [
        _ability(base, sampled[Kind.KNOWN], wrong, given, bare),
        _reach(base, sampled, far_k),
        _likelihoods(base, sampled, wrong, given),
    ]
    note = f"Model {model}, {num_problems} held-out problems of each kind, seed {seed}."
    tables[-1] = replace(tables[-1], note=note)
    return tables, all(row[-1] in ("met", "") for table in tables for row in table.rows)


def _wrong(base: Probe, cases: Iterable[Case]) -> list[Case]:
    """Return the first wrong rollouts of each problem."""
    return [
        case
        for _, of_problem in groupby(cases, lambda case: case.problem.problem_id)
        for case in islice((c for c in of_problem if not base.is_right(c)), _PROPOSE.num_rollouts)
    ]


def _ability(
    base: Probe,
    known: Sequence[Case],
    wrong: Sequence[Case],
    given: Sequence[Proposal],
    bare: Sequence[Proposal],
) -> Table:
    right, located = sum(map(base.is_right, known)), base.located(given, wrong)
    exact, blind = sum(map(base.is_exact, located)), base.located(bare, wrong)
    total, errors = len(wrong), Counter(map(base.error, wrong))
    rows = [
        _bounded("pass@1 without a slip", right, len(known), 0.90, is_least=True),
        _bounded(
            "names the true first error, with reference", len(located), total, 0.80, is_least=True
        ),
        _bounded("exactly right intervention, with reference", exact, total, 0.75, is_least=True),
        _plain("names the true first error, without reference", len(blind), total),
        _bounded(
            "exactly right intervention, without reference",
            sum(map(base.is_exact, blind)),
            total,
            0.5 * exact / max(total, 1),
            is_least=False,
        ),
        _bounded(
            "most common first error", max(errors.values(), default=0), total, 0.2, is_least=False
        ),
    ]
    return Table("Rules world: what the base can do", _COLUMNS, tuple(rows))


def _reach(base: Probe, sampled: dict[Kind, list[Case]], far_k: int) -> Table:
    """Return how far each kind of problem is out of reach: hard means never, not seldom."""
    rows = []
    for kind, cases in sampled.items():
        counts = _right_by_problem(base, cases)
        rows.append(_plain(f"{kind}: right rollouts (pass@1)", sum(counts), len(cases)))
        rows.append(_plain(f"{kind}: problems with pass@64 = 0", counts.count(0), len(counts)))
    for kind in _HARD_KINDS:
        counts = _right_by_problem(base, base.sample(kind, _FAR_PROBLEMS, far_k))
        solved = len(counts) - counts.count(0)
        what = f"{kind}: problems solved in {far_k:,}"
        rows.append(_bounded(what, solved, len(counts), 0.20, is_least=False))
    return Table("Rules world: what is out of reach", _COLUMNS, tuple(rows))


def _right_by_problem(base: Probe, cases: Iterable[Case]) -> list[int]:
    by_problem = groupby(cases, lambda case: case.problem.problem_id)
    return [sum(map(base.is_right, of_problem)) for _, of_problem in by_problem]


def _likelihoods(
    base: Probe, sampled: dict[Kind, list[Case]], wrong: Sequence[Case], given: Sequence[Proposal]
) -> Table:
    """Return nats per token under the base, in the order of the paper's Fig. 9."""
    own = base.scores([Told(case.problem, "", case.rollout.text) for case in sampled[Kind.KNOWN]])
    entropy = bootstrap([sum(s.entropies) / len(s.entropies) for s in own], mean)
    rows: list[Row] = [
        ("entropy of own rollouts at T = 1", _nats(entropy), "0.2-0.5", _within(entropy, 0.2, 0.5))
    ]
    cases = {case.rollout.rollout_id: case for case in wrong}
    exact = [(cases[p.rollout_id], p) for p in base.located(given, wrong) if base.is_exact(p)]
    alone = _nll(base.scores([_intervened(case, p) for case, p in exact]))
    found = {what: _nll(base.scores(told)) for what, told in _texts(base, wrong, exact)}
    for what, values in {"own rollouts": _nll(own), "interventions alone": alone, **found}.items():
        rows.append((f"NLL of {what} ({len(values)})", _nats_of(values), "", ""))
    for (nearer, low), (farther, high) in pairwise(found.items()):
        rows.append((f"{farther} − {nearer}", *_farther(low, high)))
    return Table("Rules world: nats per token", ("figure", "nats", "required", ""), tuple(rows))


def _nats_of(values: Sequence[float]) -> str:
    return _nats(bootstrap(values, mean)) if values else "–"


def _farther(low: Sequence[float], high: Sequence[float]) -> tuple[str, str, str]:
    """Return how much farther one source is than the other; of an empty one nobody can tell."""
    if not low or not high:
        return "–", "> 0", "cannot tell"
    gap = difference(bootstrap(high, mean), bootstrap(low, mean))
    return _nats(gap), "> 0", _within(gap, 0, math.inf)


def difference(ours: Interval, theirs: Interval) -> Interval:
    """Return the difference of two independent estimates; their half-widths add in squares."""
    middle = ours.estimate - theirs.estimate
    low = math.hypot(ours.estimate - ours.low, theirs.high - theirs.estimate)
    high = math.hypot(ours.high - ours.estimate, theirs.estimate - theirs.low)
    return Interval(middle, middle - low, middle + high)


def _nll(scores: Iterable[TokenScores]) -> list[float]:
    """Return the nats per token of each text."""
    return [-sum(s.logprobs) / len(s.logprobs) for s in scores]


def _texts(
    base: Probe, wrong: Sequence[Case], exact: Sequence[tuple[Case, Proposal]]
) -> Iterator[tuple[str, list[Told]]]:
    """Yield what is trained on in each arm, from what is expected to be likeliest.

    Of InT that is the prefix with its intervention, as in the paper: most of its tokens are own.
    """
    whole = [(told.problem, told.given + told.text) for told in starmap(_intervened, exact)]
    yield "prefixes with exact interventions", [Told(problem, "", text) for problem, text in whole]
    rewrites = [case for case in base.rewrites(wrong) if base.is_right(case)]
    yield "own right rewrites", [Told(case.problem, "", case.rollout.text) for case in rewrites]
    problems = list({case.problem.problem_id: case.problem for case in wrong}.values())
    for style in TEACHERS:
        rng = random.Random(f"{base.seed}/{style.name}")
        told = [Told(problem, "", _traced(base, problem, rng, style)) for problem in problems]
        yield f"right traces in the style {style.name}", told
    yield "references", [Told(p, "", str(p.reference_solution)) for p in problems]


def _intervened(case: Case, proposal: Proposal) -> Told:
    given = BLANK_LINES.prefix_before(case.rollout.text, proposal.error_step or 0)
    return Told(case.problem, given, f"{proposal.intervention}".strip() + STEP_SEPARATOR)


def _traced(base: Probe, problem: Problem, rng: random.Random, style: Style) -> str:
    """Return a right rollout in a style; its last step is every style's own."""
    story = base.stories[problem.problem_id]
    assert isinstance(story, Story)
    said = [action.say(rng, style) for action in story.actions()]
    return STEP_SEPARATOR.join([*said, final_step(int(story.answer))])


_COLUMNS = ("figure", "count", "share %", "required", "")


def _plain(what: str, count: int, total: int) -> Row:
    return (what, f"{count}/{total}", share(wilson(count, total), 1), "", "")


def _bounded(what: str, count: int, total: int, bound: float, *, is_least: bool) -> Row:
    """Return a line with a requirement; where the interval holds the bound, nobody can tell."""
    found = wilson(count, total)
    low, high = (bound, 1.0) if is_least else (0.0, bound)
    sign = "≥" if is_least else "≤"
    answer = _within(found, low, high)
    return (what, f"{count}/{total}", share(found, 1), f"{sign} {100 * bound:.0f} %", answer)


def _within(found: Interval, low: float, high: float) -> str:
    """Return whether an interval lies within a range, outside, or neither."""
    if low <= found.low and found.high <= high:
        return "met"
    return "NOT MET" if found.high < low or found.low > high else "cannot tell"


def _nats(found: Interval) -> str:
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
