"""Appendix F: are interventions memorised? Rollouts of unseen problems, before and after the patch.

A rollout's n-grams of words are looked up among those of the training interventions, and a rollout
is said to copy if it holds a training intervention as a whole. A patch that only copies would
solve nothing where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import estimate, mean, more
from midcourse.experiments.readings import joined
from midcourse.experiments.results import Experiment, Result
from midcourse.pipeline import Pipeline
from midcourse.pipeline.training import ready_rows
from midcourse.records import Grade, Rollout, Verdict
from midcourse.table import Table, share

#: Words of an n-gram: about a step of the lab; long enough that chance hits are rare elsewhere.
N = 5
#: Problems shown side by side.
_NUM_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """One rollout of an unseen problem, and what of it stands in the training interventions."""

    is_correct: bool
    copies: bool
    """Whether a training intervention stands in it as a whole."""
    overlap: float
    """Share of its n-grams that training interventions hold."""
    text: str


def ngrams(text: str, n: int = N) -> set[tuple[str, ...]]:
    """Return the n-grams of the words of a text; of a shorter text, all its words as one."""
    words = text.split()
    if len(words) < n:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _training_interventions(pipeline: Pipeline) -> list[str]:
    chosen = {row.proposal_id for row in ready_rows(pipeline.rows)}
    texts = (p.intervention for p in pipeline.candidates if p.proposal_id in chosen)
    return [text.strip() for text in texts if text]


def _seen(pipeline: Pipeline, role: str) -> dict[str, list[Seen]]:
    """Return the held-out rollouts of the model in a role, by problem."""
    interventions = _training_interventions(pipeline)
    known = {gram for text in interventions for gram in ngrams(text)}
    drawn = pipeline.evaluate(pipeline.in_role(role), "held_out")
    verdicts = {g.rollout_id: g.verdict for g in drawn.grades.read(Grade)}
    found: dict[str, list[Seen]] = {}
    for rollout in drawn.rollouts.read(Rollout, without=("token_ids",)):
        grams = ngrams(rollout.text)
        overlap = len(grams & known) / len(grams) if grams else 0.0
        copies = any(text in rollout.text for text in interventions)
        seen = Seen(verdicts[rollout.rollout_id] is Verdict.CORRECT, copies, overlap, rollout.text)
        found.setdefault(rollout.problem_id, []).append(seen)
    return found


def _appendix_f(bench: Bench) -> Result:
    found = {
        role: joined(bench.read("int", lambda p, role=role: _seen(p, role)))  # type: ignore[misc]
        for role in ("base", "patched")
    }
    rows, right = [], {}
    for role, by_problem in found.items():
        overlap = {p: [s.overlap for s in seen] for p, seen in by_problem.items()}
        copies = {p: [float(s.copies) for s in seen] for p, seen in by_problem.items()}
        fresh = {
            p: [float(not s.copies) for s in seen if s.is_correct] for p, seen in by_problem.items()
        }
        right[role] = {p: values for p, values in fresh.items() if values}
        num_right = sum(len(values) for values in right[role].values())
        cells = [share(estimate(x, mean), 1) for x in (overlap, copies, right[role])]
        rows.append((role, str(sum(map(len, by_problem.values()))), *cells[:2], str(num_right),
                     cells[2]))  # fmt: skip
    columns = ("model", "rollouts", f"{N}-grams of training interventions, %",
               "rollouts with a whole one, %", "correct rollouts",
               "of them without one, %")  # fmt: skip
    table = Table("Held-out rollouts against training interventions", columns, tuple(rows),
                  "95 % bootstrap over problems.")  # fmt: skip
    after = right["patched"]
    half = {p: [0.5] * len(values) for p, values in after.items()}
    claim = more("most correct patched rollouts of unseen problems copy no training intervention",
                 after, half, mean)  # fmt: skip
    return Result(tables=(table, _side_by_side(found)), claims=(claim,))


def _side_by_side(found: dict[str, dict[str, list[Seen]]]) -> Table:
    """Show problems that the base never solved and the patched model did (Figs 17, 18)."""

    def pairs() -> Iterator[tuple[str, str, str]]:
        for problem_id, after in sorted(found["patched"].items()):
            before = found["base"].get(problem_id, [])
            right = [seen for seen in after if seen.is_correct]
            if before and right and not any(seen.is_correct for seen in before):
                yield problem_id, _in_a_line(before[0].text), _in_a_line(right[0].text)

    rows = tuple(pair for pair, _ in zip(pairs(), range(_NUM_SHOWN), strict=False))
    note = "Unseen problems that no rollout of the base solved; steps are parted by ‖."
    return Table("Side by side", ("problem", "base", "patched"), rows, note)


def _in_a_line(text: str) -> str:
    return text.strip().replace("\n\n", " ‖ ").replace("\n", " ")


APPENDIX_F = Experiment(
    name="appendix-f", title="Appendix F: are interventions memorised?", recipes=("int",),
    make=_appendix_f,
)  # fmt: skip
