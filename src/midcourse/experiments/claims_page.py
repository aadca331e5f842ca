"""``docs/results/claims.md``: each primary claim, its design, its runs and its verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from midcourse.experiments.catalogue import Row
from midcourse.experiments.claims import Primary, PrimaryClaim, primary_claims
from midcourse.experiments.outcomes import LEVEL, MEASURES, Outcome, outcomes
from midcourse.experiments.page import BEGIN, END, by_hand
from midcourse.metrics import Interval
from midcourse.report.runs import Comparison, judge_all, runs_needed
from midcourse.table import Table

#: Differences, as shares, for which the page says how many runs would show them.
_EFFECTS = (0.05, 0.10)
_HEAD = """# Primary claims

The claims about training that this project makes, named before they were judged; what had been
seen of their runs by then is said below. Everything else in these results is exploratory: its
intervals are not corrected for how many there are, and it is to be read as a suggestion. Built by
`midcourse evidence --pages` from the data in `docs/results/data` alone; the claims are
`src/midcourse/experiments/claims.toml`.

- **Unit.** A training run: each gives one number, and arms are compared on the seeds that both
  have. Seeds are 1 to {runs}; 0 was a pilot. All seeds of a world share one base model, so a claim
  is about training from that base.
- **Verdict.** Only when all planned runs are there: no look before that can stop a study early.
  An exact sign-flip test over the pairs gives p; Holm's correction over all {number} claims gives
  the corrected p. At most {level} % corrected, a claim *holds* or *does not hold*; else we
  *cannot tell*. A claim whose runs are not all there counts as p = 1 in the correction, so that
  runs that come later can only make other verdicts firmer.
- **Intervals** are 95 % and not corrected: Student's t over the pairs, and a hierarchical bootstrap
  (runs, then what the claim counts in each), which is too narrow with few runs. They do not decide:
  a claim can hold whose interval holds zero, where one run is far from the others.
- **Power.** The runs that would show a true difference of 5 or 10 points in 4 of 5 studies, at the
  spread seen between pairs: alone at 5 %, and at Holm's strictest level, 5 % / {number}.

See [What counts as evidence](../concepts/evidence.md).
"""


def write_claims(results: Path) -> None:
    """Write ``claims.md`` from the data in `results`; what a person wrote there is kept."""
    page, primary = results / "claims.md", primary_claims()
    page.write_text(claims_page(primary, results, by_hand(page, "")), "utf-8")


def claims_page(primary: Primary, results: Path, written: str) -> str:
    """Return the page from the data in `results`, with what a person wrote."""
    found, number = outcomes(primary, results), len(primary.claims)
    runs = max(claim.runs for claim in primary.claims)
    head = _HEAD.format(runs=runs, number=number, level=f"{100 * LEVEL:.0f}")
    lines = [head, BEGIN, written, END, "", *claims_table(found).markdown()]
    for place, (one, p) in enumerate(found, start=1):
        scale = primary.worlds[one.claim.world]
        lines += ["", f'<a id="claim-{place}"></a>', "", f"## {place}. {one.claim.words}", ""]
        lines += _design(one.claim, " + ".join((scale.scale, *scale.overlays)))
        lines += ["", f"**{one.verdict(p)}**" + f", corrected p = {p:.3g}." * one.is_whole]
        lines += _result(one, number)
    return "\n".join(lines) + "\n"


def claims_table(found: Iterable[tuple[Outcome, float]], page: str = "") -> Table:
    """Return a row a claim, with its corrected p-value; `page` is where they lie."""
    rows = [
        (
            f"[{place}]({page}#claim-{place})",
            one.claim.words,
            one.claim.world,
            f"**{one.verdict(p)}**",
            _differences(one),
            f"{p:.3g}" if one.is_whole else "–",
        )
        for place, (one, p) in enumerate(found, start=1)
    ]
    columns = ("", "claim", "world", "verdict", "difference, points", "corrected p")
    return Table("", columns, tuple(rows))


def _differences(one: Outcome) -> str:
    made = [_points(of.difference) for of in one.comparisons.values() if of.seeds]
    return "; ".join(made) or "–"


def _design(claim: PrimaryClaim, scale: str) -> list[str]:
    how = MEASURES[claim.measure].words
    on = f", on {claim.on.replace('_', ' ')} problems" if claim.on else ""
    arms = f"{_arm(claim.ours)} against {'; '.join(map(_arm, claim.theirs))}"
    margin = f" Margin: {100 * claim.within:g} points." if claim.within else ""
    return [
        f"- Where: {scale}; {claim.runs} runs an arm.",
        f"- Arms: {arms}.",
        f"- Measure: {how}{on}.{margin}",
        f"- A no: {claim.no}",
    ]


def _arm(row: Row) -> str:
    return f"{row.name} (`{row.recipe}`, {row.key})"


def _result(one: Outcome, number: int) -> Iterator[str]:
    """Yield what each comparison came to, run by run."""
    for name, made in one.comparisons.items():
        if not made.seeds:
            continue
        rows = [
            (str(seed), *(f"{100 * value:.1f}" for value in values))
            for seed, *values in zip(
                made.seeds, made.ours, made.theirs, made.differences, strict=True
            )
        ]
        columns = ("seed", f"{one.claim.ours.name} %", f"{name} %", "difference")
        figures = _figures(made, one.claim, number)
        yield from ("", *Table("", columns, tuple(rows)).markdown(), "", figures)


def _figures(made: Comparison, claim: PrimaryClaim, number: int) -> str:
    said = f"Difference {_points(made.difference)} points by t"
    if level := MEASURES[claim.measure].level:
        said += f", {_points(made.resampled)} by the hierarchical bootstrap (runs, then {level})"
    p_value = judge_all([made.differences], claim.within).p_value
    if claim.within:
        ends = f"each end of {100 * claim.within:g} points"
        return f"{said}; p = {p_value:.3g}, the larger of two tests, one against {ends}."
    return f"{said}; p = {p_value:.3g}. {_power(made.differences, number)}"


def _points(found: Interval) -> str:
    middle = f"{100 * found.estimate:+.1f}"
    if math.isnan(found.low):
        return f"{middle} (no interval)"
    return f"{middle} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _power(differences: Sequence[float], number: int) -> str:
    parts = []
    for effect in _EFFECTS:
        alone = runs_needed(differences, effect)
        strict = runs_needed(differences, effect, LEVEL / number)
        if alone is None:
            return "Power: needs two runs."
        parts.append(f"{100 * effect:.0f} points {alone} runs alone, {strict} corrected")
    return f"Runs needed: for {'; for '.join(parts)}."
