"""A second opinion on a run's grades: plain math-verify on the same responses.

What follows from a verdict is above all which problems are hard. Disagreements that would change
such a label come first: a "hard" problem that the second opinion calls solved, then a solved one
that it calls hard. What RL sampled is also graded again, by the checker that is installed now:
what was rewarded stays what it was, and a fix of the checker says how much of it was wrong.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from midcourse.checkers import Grader
from midcourse.checkers.math.second_opinion import NAME
from midcourse.pipeline import Method, Session
from midcourse.pipeline.session import open_grader
from midcourse.pipeline.values import Drawn
from midcourse.records import DEFAULT_CHECKER, Gold, Grade, Problem, Rollout, Verdict
from midcourse.report.rl import rl_folders
from midcourse.run import Reader
from midcourse.stages.grade import response_of
from midcourse.store.stage import MANIFEST
from midcourse.table import Table
from midcourse.training.rl.store import read_rl

#: The file of all disagreements, in the run directory.
AUDIT_FILE = "audit.jsonl"
#: Disagreements shown in the terminal; the file holds them all.
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What our verdict was and what the second opinion says of one rollout."""

    problem_id: str
    rollout_id: str
    model: str
    """Who sampled it: ``base:<hash>``, ``rl:<key>@<iteration>``."""
    gold: str
    answer: str | None
    verdict: Verdict
    second: Verdict
    by: str
    """Whose opinion it is: math-verify's, or that of the checker that is installed now."""
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
    grades = {grade.rollout_id: grade for grade in reader.read(drawn.grades)}
    rollouts = reader.read(drawn.rollouts, ("token_ids",))
    pairs = ((r, grades[r.rollout_id]) for r in rollouts if r.rollout_id in grades)
    return _labelled(opinions(pairs, second_golds(problems), grader))


def second_golds(problems: Iterable[Problem]) -> dict[str, Gold]:
    """Return what math-verify compares with, of the problems that mathematics' checker grades."""
    graded = [problem for problem in problems if problem.gold.checker == DEFAULT_CHECKER]
    return {problem.problem_id: replace(problem.gold, checker=NAME) for problem in graded}


def opinions(
    pairs: Iterable[tuple[Rollout, Grade]], golds: Mapping[str, Gold], grader: Grader
) -> list[Opinion]:
    """Return what the checkers that `golds` name say of rollouts, next to their verdicts.

    Rollouts of problems without a gold are left out.
    """
    asked: list[Opinion] = []

    def responses() -> Iterator[tuple[str, Gold]]:
        for rollout, grade in pairs:
            if gold := golds.get(rollout.problem_id):
                asked.append(_asked(rollout, grade, gold))
                yield response_of(rollout.open_box, rollout.text, rollout.given), gold

    seconds = [result.verdict for result in grader.grade(responses())]
    return [replace(one, second=second) for one, second in zip(asked, seconds, strict=True)]


def _asked(rollout: Rollout, grade: Grade, gold: Gold) -> Opinion:
    return Opinion(
        problem_id=grade.problem_id,
        rollout_id=grade.rollout_id,
        model=rollout.model,
        gold=gold.value,
        answer=grade.extracted_answer,
        verdict=grade.verdict,
        second=Verdict.UNGRADED,
        by="math-verify" if gold.checker == NAME else "midcourse now",
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
    found = disagreements(opinions)
    flips = {(o.problem_id, o.label) for o in found if o.label}
    listed = tuple(
        (o.problem_id, o.gold, o.answer or "–", str(o.verdict), str(o.second), o.label or "–")
        for o in found[:_SHOWN]
    )
    return [
        counts_table(f"Second opinion on {len(opinions):,} rollouts", opinions),
        Table(
            f"{len(found):,} disagreements, {len(flips):,} labels would change",
            ("problem", "gold", "answer", "midcourse", "math-verify", "label"),
            listed,
            f"The first {_SHOWN}; all are in the file." if len(found) > _SHOWN else "",
        ),
    ]


def counts_table(title: str, opinions: Iterable[Opinion]) -> Table:
    """Return how often each verdict met each second one."""
    counts = Counter((o.verdict, o.second) for o in opinions)
    seconds = sorted({second for _, second in counts})
    rows = tuple(
        (str(verdict), *(f"{counts[verdict, second]:,}" for second in seconds))
        for verdict in Verdict
        if any(counts[verdict, second] for second in seconds)
    )
    return Table(title, ("midcourse \\ second opinion", *map(str, seconds)), rows)


def audit_rl(
    run_dir: Path, problems: Iterable[Problem], second: Grader, now: Grader
) -> dict[str, list[Opinion]]:
    """Return, by title, both opinions on what every finished RL training sampled.

    `second` is as `audit_grades` has it; `now` is our own grader as it is installed. Trainings of
    an earlier checker are in the run directory too, and are the ones to look at after a fix.
    """
    known = list(problems)
    ours = {problem.problem_id: problem.gold for problem in known}
    asked = {"math-verify": (second_golds(known), second), "graded again": (ours, now)}
    return {
        f"{name}: as rewarded, and {what}": opinions(_rewarded(folder), golds, grader)
        for folder, name in rl_folders(run_dir).items()
        if (folder / MANIFEST).is_file()
        for what, (golds, grader) in asked.items()
    }


def _rewarded(folder: Path) -> Iterator[tuple[Rollout, Grade]]:
    return ((rollout, grade) for rollout, grade, _ in read_rl(folder, ("token_ids",)))


def audit_run(session: Session, made: Method) -> list[Table]:
    """Return the tables of a run's audit, once every disagreement is in its file."""
    problems, limits = session.setup.problems.train, session.setup.recipe.grade
    run_dir = session.run.directory
    # Workers that compared for us read numbers our way: the second opinion has its own.
    with open_grader(limits) as second, open_grader(limits) as now:
        sampled = audit_grades(session.run, made.train, problems, second)
        rewarded = audit_rl(run_dir, problems, second, now)
    every = [*sampled, *(one for found in rewarded.values() for one in found)]
    write_disagreements(every, run_dir / AUDIT_FILE)
    tables = [counts_table(title, found) for title, found in rewarded.items()]
    return [*audit_tables(sampled), *tables]


def write_disagreements(opinions: Iterable[Opinion], path: Path) -> None:
    """Write where the two differ, one JSON object a line."""
    lines = (json.dumps(asdict(o), ensure_ascii=False) for o in disagreements(opinions))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
