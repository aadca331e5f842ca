"""A second opinion on a run's grades: plain math-verify on the same responses.

What follows from a verdict is above all which problems are hard. Disagreements that would change
such a label come first: a "hard" problem that the second opinion calls solved, then a solved one
that it calls hard.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from midcourse.checkers import Grader
from midcourse.checkers.math.second_opinion import NAME
from midcourse.pipeline.values import Drawn
from midcourse.records import DEFAULT_CHECKER, Gold, Grade, Problem, Verdict
from midcourse.run import Reader
from midcourse.table import Table

#: Disagreements shown in the terminal; the file holds them all.
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What we and the second opinion say of one rollout."""

    problem_id: str
    rollout_id: str
    gold: str
    answer: str | None
    verdict: Verdict
    second: Verdict
    label: str = ""
    """What would become of its problem, ``hard → solved``; "" if nothing."""

    @property
    def differs(self) -> bool:
        """Whether one says correct and the other does not."""
        return (self.verdict is Verdict.CORRECT) is not (self.second is Verdict.CORRECT)


def audit_grades(
    reader: Reader, drawn: Drawn, problems: Iterable[Problem], grader: Grader
) -> list[Opinion]:
    """Return both opinions on every rollout of the problems that mathematics' checker grades.

    `grader` must be one that has graded nothing else: our own checker makes math-verify exact.
    """
    golds = {p.problem_id: p.gold for p in problems if p.gold.checker == DEFAULT_CHECKER}
    grades = {g.rollout_id: g for g in reader.read(drawn.grades) if g.problem_id in golds}
    asked: list[Grade] = []

    def responses() -> Iterator[tuple[str, Gold]]:
        for rollout in reader.read(drawn.rollouts, ("token_ids",)):
            if rollout.rollout_id in grades:
                grade = grades[rollout.rollout_id]
                asked.append(grade)
                yield (
                    rollout.open_box + rollout.text,
                    replace(golds[grade.problem_id], checker=NAME),
                )

    seconds = [result.verdict for result in grader.grade(responses())]
    return _labelled(
        [
            Opinion(
                problem_id=grade.problem_id,
                rollout_id=grade.rollout_id,
                gold=golds[grade.problem_id].value,
                answer=grade.extracted_answer,
                verdict=grade.verdict,
                second=second,
            )
            for grade, second in zip(asked, seconds, strict=True)
        ]
    )


def _labelled(opinions: list[Opinion]) -> list[Opinion]:
    """Say where a disagreement would change whether its problem counts as solved."""
    ours, theirs = _solved(opinions, "verdict"), _solved(opinions, "second")

    def label(opinion: Opinion) -> str:
        solved = opinion.problem_id in ours
        if not opinion.differs or solved is (opinion.problem_id in theirs):
            return ""
        return "solved → hard" if solved else "hard → solved"

    return [replace(opinion, label=label(opinion)) for opinion in opinions]


def _solved(opinions: list[Opinion], whose: str) -> set[str]:
    return {o.problem_id for o in opinions if getattr(o, whose) is Verdict.CORRECT}


def disagreements(opinions: Iterable[Opinion]) -> list[Opinion]:
    """Return where the two differ, what would change a label first."""
    order = defaultdict(lambda: 2, {"hard → solved": 0, "solved → hard": 1})
    return sorted((o for o in opinions if o.differs), key=lambda o: (order[o.label], o.problem_id))


def audit_tables(opinions: list[Opinion]) -> list[Table]:
    """Return the counts of both opinions, and the first disagreements."""
    counts = Counter((o.verdict, o.second) for o in opinions)
    seconds = sorted({second for _, second in counts})
    rows = tuple(
        (str(verdict), *(f"{counts[verdict, second]:,}" for second in seconds))
        for verdict in Verdict
        if any(counts[verdict, second] for second in seconds)
    )
    columns = ("midcourse \\ math-verify", *map(str, seconds))
    found = disagreements(opinions)
    flips = {(o.problem_id, o.label) for o in found if o.label}
    listed = tuple(
        (o.problem_id, o.gold, o.answer or "–", str(o.verdict), str(o.second), o.label or "–")
        for o in found[:_SHOWN]
    )
    return [
        Table(f"Second opinion on {len(opinions):,} rollouts", columns, rows),
        Table(
            f"{len(found):,} disagreements, {len(flips):,} labels would change",
            ("problem", "gold", "answer", "midcourse", "math-verify", "label"),
            listed,
            f"The first {_SHOWN}; all are in the file." if len(found) > _SHOWN else "",
        ),
    ]


def write_disagreements(opinions: Iterable[Opinion], path: Path) -> None:
    """Write where the two differ, one JSON object a line."""
    lines = (json.dumps(asdict(o), ensure_ascii=False) for o in disagreements(opinions))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
